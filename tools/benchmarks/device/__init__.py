"""What `bench.py ceilings`, `end-to-end` and `cifar-speed` measure: how fast a device is used. Made for GPUs."""
