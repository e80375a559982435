"""The style of a page: one set of colours for light and one for dark, told apart by more than red and green.

Hues are those of Okabe and Ito ("Color Universal Design", 2008), which any kind of colour vision tells apart; in
the dark they are lighter.
"""

STYLE = """
:root { color-scheme: light dark;
  --page: #fbfbf9; --card: #ffffff; --ink: #1c2024; --soft: #5b636b; --line: #dfe2e5;
  --data: #d98300; --copy: #a8588c; --compute: #0072b2; --other: #7d868e; --loop: #00845f; --alarm: #c4451a;
  --on-light: #15181b; --on-dark: #ffffff; --badge: #fff3dd; }
@media (prefers-color-scheme: dark) { :root {
  --page: #15181b; --card: #1d2125; --ink: #e9ecef; --soft: #a3abb3; --line: #343a40;
  --data: #f0a830; --copy: #d68fbd; --compute: #56b4e9; --other: #98a1a9; --loop: #2cc295; --alarm: #f2784b;
  --on-light: #15181b; --on-dark: #15181b; --badge: #3a2d14; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--ink);
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Liberation Sans", "DejaVu Sans", sans-serif; }
main { max-width: 920px; margin: 0 auto; padding: 20px 14px 60px; }
h1 { font-size: 15px; font-weight: 600; color: var(--soft); margin: 0 0 10px; overflow-wrap: anywhere; }
h2 { font-size: 18px; margin: 0 0 2px; }
section, header { background: var(--card); border: 1px solid var(--line); border-radius: 10px;
  padding: 16px 18px; margin: 0 0 14px; }
.verdict { font-size: 21px; line-height: 1.35; font-weight: 650; margin: 8px 0 10px; overflow-wrap: anywhere; }
.badge { display: inline-block; background: var(--badge); border: 1px solid var(--data); border-radius: 20px;
  padding: 1px 12px; font-weight: 650; }
.badge.copy { border-color: var(--copy); } .badge.compute { border-color: var(--compute); }
.badge.other { border-color: var(--other); }
p { margin: 4px 0 8px; overflow-wrap: anywhere; } .soft, .facts dt, caption { color: var(--soft); }
.facts { display: grid; grid-template-columns: repeat(auto-fill, minmax(215px, 1fr)); gap: 8px 18px; margin: 8px 0 0; }
.facts div { min-width: 0; } .facts dt { font-size: 13px; } .facts dd { margin: 0; overflow-wrap: anywhere; }
ol, ul { margin: 6px 0; padding-left: 22px; } li { margin: 4px 0; overflow-wrap: anywhere; }
.gain { white-space: nowrap; font-weight: 650; }
.scroll { overflow-x: auto; margin: 8px -4px 0; padding: 0 4px; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; font-size: 14px; }
th, td { text-align: right; padding: 4px 8px 4px 0; border-bottom: 1px solid var(--line); white-space: nowrap; }
th { font-weight: 600; color: var(--soft); } th:first-child, td:first-child, .left { text-align: left; }
td.long { white-space: normal; min-width: 150px; max-width: 260px; overflow-wrap: anywhere; }
tr.limiting td, tr.limiting th { font-weight: 700; }
.why { margin-top: 12px; } details { margin-top: 10px; } summary { cursor: pointer; color: var(--soft); }
pre { overflow-x: auto; font-size: 12.5px; line-height: 1.45; }
svg { display: block; width: 100%; height: auto; margin-top: 10px; }
svg text { font: 12px system-ui, -apple-system, "Segoe UI", Roboto, "Liberation Sans", "DejaVu Sans", sans-serif;
  fill: var(--ink); }
svg text.small { fill: var(--soft); } svg text.strong { font-weight: 650; }
svg text[class^="on-"] { font-weight: 600; fill: var(--on-dark); }
svg text.on-data, svg text.on-other { fill: var(--on-light); }
.narrow { display: none; }
@media (max-width: 640px) { .wide { display: none; } .narrow { display: block; }
  .verdict { font-size: 18px; } section, header { padding: 13px 12px; } }
.fill-data { fill: var(--data); } .fill-copy { fill: var(--copy); } .fill-compute { fill: var(--compute); }
.fill-other { fill: var(--other); } .fill-loop { fill: var(--loop); } .alarm { fill: var(--alarm); }
.pale { opacity: .38; } .open { fill-opacity: .22; stroke-width: 1.2; }
.open.fill-data { stroke: var(--data); } .open.fill-copy { stroke: var(--copy); }
.open.fill-compute { stroke: var(--compute); } .open.fill-other { stroke: var(--other); }
.ink { stroke: var(--ink); stroke-width: 1.6; } .thin { stroke-width: 1; opacity: .6; }
.grid { stroke: var(--line); stroke-width: 1; } .step { stroke: var(--soft); stroke-width: 1; }
.ceiling { stroke: var(--compute); stroke-width: 2; stroke-dasharray: 6 4; }
.stroke-data { stroke: var(--data); stroke-width: 2; fill: none; }
.stroke-loop { stroke: var(--loop); stroke-width: 1.6; fill: none; }
.band { fill: var(--loop); opacity: .18; } .hollow { fill: var(--card); stroke: var(--loop); stroke-width: 2; }
"""
