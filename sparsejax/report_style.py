"""The style sheet of the report, in the colours of the plots."""

from sparsejax.plot_style import DENSE, INK, MUTED, PAPER, SPARSE

STYLE = f"""
:root {{ color-scheme: light; }}
* {{ box-sizing: border-box; }}
body {{ margin: 0; background: #f4f6f8; color: {INK};
  font: 15px/1.5 Inter, "Helvetica Neue", Arial, "Liberation Sans",
  sans-serif; }}
main {{ max-width: 1140px; margin: 0 auto; padding: 40px 24px 64px; }}
header {{ margin-bottom: 24px; }}
.kicker {{ margin: 0; color: {SPARSE}; font-size: 12px; font-weight: 600;
  letter-spacing: .08em; text-transform: uppercase; }}
h1 {{ margin: 2px 0 6px; font-size: 32px; line-height: 1.2; letter-spacing: -.01em; }}
h2 {{ margin: 0 0 16px; font-size: 18px; }}
.claim {{ margin: 0; max-width: 72ch; color: {MUTED}; font-size: 17px; }}
.tiles {{ display: grid; gap: 12px; margin-bottom: 12px;
  grid-template-columns: repeat(auto-fit, minmax(165px, 1fr)); }}
.tile, section {{ background: {PAPER}; border: 1px solid #e3e8ed;
  border-radius: 10px; }}
.tile {{ padding: 14px 16px; }}
.tile .label {{ color: {MUTED}; font-size: 13px; }}
.tile .value {{ font-size: 25px; font-weight: 650; letter-spacing: -.01em;
  white-space: nowrap;  font-variant-numeric: tabular-nums; }}
.tile .detail {{ color: {MUTED}; font-size: 12.5px; line-height: 1.35; }}
section {{ margin-top: 12px; padding: 22px 24px; overflow-x: auto; }}
img {{ display: block; max-width: 100%; height: auto; }}
.pictures {{ display: flex; flex-wrap: wrap; gap: 20px 22px; }}
table {{ width: 100%; border-collapse: collapse; margin-top: 20px; font-size: 13px;
  font-variant-numeric: tabular-nums; }}
th, td {{ padding: 4px 10px; text-align: right; white-space: nowrap; }}
th {{ color: {MUTED}; font-weight: 500; border-bottom: 1px solid {DENSE};
  vertical-align: bottom; }}
tbody tr:nth-child(even) {{ background: #f8fafb; }}
tfoot td {{ border-top: 1px solid {DENSE}; font-weight: 650; }}
th:first-child, td:first-child, th:nth-child(3), td:nth-child(3) {{
  text-align: left; }}
.bar {{ display: inline-block; width: 64px; height: 7px; margin-right: 10px;
  background: {DENSE}; border-radius: 2px; overflow: hidden; }}
.bar i {{ display: block; height: 100%; background: {SPARSE}; }}
td span {{ display: inline-block; min-width: 62px; }}
tfoot .bar {{ visibility: hidden; }}
dl {{ display: grid; grid-template-columns: repeat(auto-fill, minmax(320px, 1fr));
  gap: 0 32px; margin: 0; font-size: 13.5px; }}
dl div {{ display: flex; justify-content: space-between; gap: 16px; padding: 4px 0;
  border-bottom: 1px solid #eef1f4; }}
dt {{ color: {MUTED}; }}
dd {{ margin: 0; text-align: right; overflow-wrap: anywhere; }}
pre {{ margin: 0; padding: 14px 16px; overflow-x: auto; border-radius: 8px;
  background: #f4f6f8; font-size: 13.5px; }}
code, pre {{ font-family: ui-monospace, "SF Mono", Menlo, Consolas,
  "Liberation Mono", monospace; }}
@media print {{ body {{ background: {PAPER}; }} section {{ break-inside: avoid; }} }}
"""
