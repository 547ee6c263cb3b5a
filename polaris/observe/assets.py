"""Style sheet and script of the report page."""

import re

STYLE = """
:root { color-scheme: light dark; --page: #f7f6f2; --card: #ffffff; --ink: #1c1b19; --dim: #6b6a64; --rule: #e5e4de;
  --edge: #c9c8c0; --band: #f1f0ea;
  --good: #0b7a3b; --good-bg: #e2f4e8; --bad: #b3261e; --bad-bg: #fbe6e4; --other: #8a5a00; --other-bg: #faeed3;
  --p1: #fff3c4; --p2: #ffd9a0; --p3: #ffb59a; --p4: #f5899b; --zone0: #dcf2e7; --zone1: #fdf0d0; --zone2: #f9dfda;
  --measured: #d3d2cb; --correct: #2f9e63; --wrong: #e2776c; --cut: #a9a79e;
  --c0: #2a78d6; --c1: #eb6834; --c2: #1baf7a; --c3: #b98900; --c4: #c9528a; --c5: #6f62d6; }
@media (prefers-color-scheme: dark) { :root { --page: #161614; --card: #1f1f1c; --ink: #ecebe6; --dim: #a09f98; --rule: #34332f;
  --edge: #4c4b45; --band: #2a2a26;
  --good: #7fdca4; --good-bg: #16351f; --bad: #ff9c92; --bad-bg: #43201c; --other: #f0c566; --other-bg: #3b2f12;
  --p1: #4a4013; --p2: #5d4210; --p3: #6e331b; --p4: #7a2338; --zone0: #1d4030; --zone1: #463a17; --zone2: #532a25;
  --measured: #4a4944; --correct: #3f9f6b; --wrong: #c65f55; --cut: #6f6d66;
  --c0: #4d94ea; --c1: #f08050; --c2: #2cc48d; --c3: #d9a72b; --c4: #e07fae; --c5: #9489f0; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--ink); font: 15px/1.5 system-ui, sans-serif; }
main { max-width: 1360px; margin: 0 auto; padding: 32px 24px 64px; }
h1 { font-size: 26px; margin: 0; letter-spacing: -0.01em; }
h2 { font-size: 18px; margin: 40px 0 12px; }
h3 { font-size: 15px; margin: 22px 0 4px; }
p.dim { margin: 8px 0; font-size: 13px; }
.dim, .facts { color: var(--dim); }
.facts { margin: 4px 0 0; }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(150px, 1fr)); gap: 12px; margin-top: 20px; }
.tile, figure, .rollout, .empty, .wide-table { background: var(--card); border: 1px solid var(--rule); border-radius: 10px; }
.tile { padding: 12px 16px; }
.tile b { display: block; font-size: 24px; font-weight: 600; line-height: 1.3; font-variant-numeric: tabular-nums; }
.tile span { color: var(--dim); font-size: 13px; }
.charts { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 380px), 1fr)); gap: 12px; }
figure { margin: 0; padding: 12px 14px 10px; min-width: 0; }
figure output { display: block; min-height: 18px; font-size: 12px; line-height: 18px; color: var(--dim);
  font-variant-numeric: tabular-nums; white-space: nowrap; overflow: hidden; text-overflow: ellipsis; }
svg { display: block; width: 100%; height: auto; touch-action: pan-y; }
svg text { font-family: inherit; font-variant-numeric: tabular-nums; }
svg:focus-visible, button:focus-visible, summary:focus-visible, .wide-table:focus-visible {
  outline: 2px solid var(--c0); outline-offset: 2px; }
svg .cursor { stroke: var(--dim); }
.empty { padding: 14px 16px; color: var(--dim); }
.filter { display: flex; align-items: center; gap: 8px; margin-bottom: 12px; flex-wrap: wrap; }
button { font: inherit; font-size: 13px; padding: 3px 12px; border-radius: 99px; border: 1px solid var(--rule);
  background: var(--card); color: var(--ink); cursor: pointer; }
button[aria-pressed=true] { background: var(--ink); color: var(--page); border-color: var(--ink); }
.filter > span { font-size: 13px; min-width: 48px; }
.rollout { padding: 12px 16px; margin-bottom: 10px; border-left-width: 4px; overflow-wrap: anywhere; }
.rollout > .dim { font-size: 13px; }
.rollout[hidden] { display: none; }
pre i, .key i { font-style: normal; border-radius: 3px; }
i.p1 { background: var(--p1); } i.p2 { background: var(--p2); } i.p3 { background: var(--p3); } i.p4 { background: var(--p4); }
p .key { margin-right: 8px; white-space: nowrap; } p .key i { padding: 1px 6px; color: var(--ink); border: 1px solid var(--rule); }
.rollout.good { border-left-color: var(--good); } .rollout.bad { border-left-color: var(--bad); }
.rollout.other { border-left-color: var(--other); }
.verdict { font-size: 12px; font-weight: 600; padding: 1px 9px; border-radius: 99px; margin-right: 8px; }
.good .verdict { color: var(--good); background: var(--good-bg); } .bad .verdict { color: var(--bad); background: var(--bad-bg); }
.other .verdict { color: var(--other); background: var(--other-bg); }
pre { white-space: pre-wrap; overflow-wrap: anywhere; font: 13px/1.5 ui-monospace, monospace; margin: 8px 0;
  max-height: 480px; overflow-y: auto; }
details > summary { cursor: pointer; color: var(--dim); font-size: 13px; }
.part { font-size: 12px; color: var(--dim); margin-top: 10px; }
.answers { display: grid; grid-template-columns: max-content 1fr; gap: 0 14px; align-items: baseline; }
.answers .part { margin: 0; } .answers pre { margin: 2px 0; }
.wide-table { overflow-x: auto; margin: 10px 0; }
table { border-spacing: 0; width: 100%; font-size: 13px; font-variant-numeric: tabular-nums; }
th, td { padding: 5px 14px; text-align: left; vertical-align: top; white-space: nowrap; }
th { color: var(--dim); font-weight: 500; }
td { border-top: 1px solid var(--rule); }
.settings td { white-space: normal; overflow-wrap: anywhere; }
@media (max-width: 600px) { main { padding: 20px 14px 48px; } }
"""

LIGHT: dict[str, str] = dict(re.findall(r"--([\w-]+): (#\w{6})", STYLE.split("@media")[0]))
"""Colours of the light page by name; no two are the same."""

SCRIPT = """
const cards = [...document.querySelectorAll(".rollout")], filters = [...document.querySelectorAll(".filter")];
for (const filter of filters) filter.addEventListener("click", event => {
  const pressed = event.target.closest("button");
  if (!pressed) return;
  for (const button of filter.querySelectorAll("button")) button.ariaPressed = String(button === pressed);
  const wanted = filters.map(one => [one.dataset.key, one.querySelector("[aria-pressed=true]").value]);
  for (const card of cards) card.hidden = wanted.some(([key, value]) => value !== "all" && card.dataset[key] !== value);
  const left = cards.filter(card => !card.hidden).length;
  document.querySelector(".shown").textContent = left + " of " + cards.length + " rollouts";
});
const format = (value, percent) => value === null ? "not finite"
  : percent ? (100 * value).toFixed(1) + "%" : Number(value.toPrecision(4)).toLocaleString("en");
for (const svg of document.querySelectorAll("svg[data-chart]")) {
  const chart = JSON.parse(svg.dataset.chart), cursor = svg.querySelector(".cursor");
  const out = svg.parentElement.querySelector("output"), { left, right } = chart;
  const steps = [...new Set(chart.curves.flatMap(([, points]) => points.map(([step]) => step)))].sort((a, b) => a - b);
  let shown = steps.length - 1;
  const show = index => {
    shown = Math.max(0, Math.min(steps.length - 1, index));
    const step = steps[shown], here = left + (step - chart.first) / (chart.last - chart.first) * (right - left);
    cursor.setAttribute("x1", here); cursor.setAttribute("x2", here); cursor.setAttribute("visibility", "visible");
    const values = chart.curves.map(([name, points]) => [name, points.find(([other]) => other === step)]).filter(([, hit]) => hit);
    out.textContent = "step " + step + ": " + values.map(([name, hit]) => name + " " + format(hit[1], chart.percent)).join(", ");
  };
  const hide = () => { cursor.setAttribute("visibility", "hidden"); out.textContent = ""; };
  svg.addEventListener("pointermove", event => {
    const box = svg.getBoundingClientRect(), x = (event.clientX - box.left) / box.width * svg.viewBox.baseVal.width;
    const at = chart.first + (x - left) / (right - left) * (chart.last - chart.first);
    show(steps.reduce((best, step, index) => Math.abs(step - at) < Math.abs(steps[best] - at) ? index : best, 0));
  });
  svg.addEventListener("pointerleave", hide);
  svg.addEventListener("focus", () => svg.matches(":focus-visible") && show(shown));
  svg.addEventListener("blur", hide);
  svg.addEventListener("keydown", event => {
    const move = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (move) { event.preventDefault(); show(shown + move); }
  });
}
"""
