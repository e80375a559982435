"""Packed or raw samples in, batches of uint8 pixels out.

Import what you need from its own module: `api` (Batch, Loader), `plan` and `crops` (which sample, cut how), `records`
(where samples are stored), `choose` (a loader by name). Nothing is imported here, so that a converter's processes do
not pay for torch; `*_loader` and `*_records` modules are reached through `choose` and `records` alone.
"""
