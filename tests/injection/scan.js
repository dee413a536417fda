// What a page has done and what is in it. `arguments`: the port of the test's server, and whether plotly's figures are shown
// from all sides: hover texts, menus.
const [port, figures] = arguments;
const faults = new Set();
const hostile = (text) => text.includes("__ran") || text.includes(`127.0.0.1:${port}`);
// Elements and attributes of this project's pages and of plotly. The texts of plotly are in `data-…` too.
const elements = new Set(("html head meta title style script body div p a h1 h2 code small span section input table caption thead tbody " +
  "tr th td img svg g path rect text tspan image defs clipPath circle line polyline polygon linearGradient stop title desc canvas").split(" "));
const holds_text = (element, name) => name.startsWith("data-") || ["alt", "aria-label"].includes(name) ||
  (element.localName === "img" && name === "src" && element.src.startsWith("data:image/svg+xml,"));
const links = (element) => element.closest(".modebar") ? [null, "https://plotly.com/"].includes(element.getAttribute("href")) : /^(index|head-\d+-\d+)\.html$/.test(element.getAttribute("href"));
const scan = () => {
  if (window.__ran !== undefined) faults.add(`ran: ${window.__ran}`);
  for (const element of document.querySelectorAll("*")) {
    const name = element.localName;
    if (!elements.has(name)) faults.add(`element ${name}`);
    if (name === "a" && !links(element)) faults.add(`link ${element.outerHTML.slice(0, 200)}`);
    if (["script", "style"].includes(name) && hostile(element.textContent)) faults.add(`${name} with a text`);
    if (name === "meta" && !element.hasAttribute("charset") && !["viewport", "generator"].includes(element.name) && element.httpEquiv !== "Content-Security-Policy") faults.add(`meta ${element.outerHTML}`);
    for (const attribute of element.attributes) {
      if (/^on/i.test(attribute.name)) faults.add(`attribute ${attribute.name} of ${name}`);
      if (hostile(attribute.value) && !holds_text(element, attribute.name)) faults.add(`attribute ${attribute.name} of ${name}: ${attribute.value.slice(0, 200)}`);
    }
    // What plotly makes of <b>, <i>, <sup>, <span style>, <extra>.
    if (name === "tspan" && !element.classList.contains("line") && !element.classList.contains("nums") && element.closest(".js-plotly-plot")) faults.add(`markup ${element.outerHTML.slice(0, 200)}`);
  }
  for (const entry of performance.getEntriesByType("resource")) {
    if (!/^(data|blob):/.test(entry.name)) faults.add(`request ${entry.name}`);
  }
};
const texts = new Set();
const read = () => {
  scan();
  for (const text of document.querySelectorAll(".js-plotly-plot text")) texts.add(text.textContent);
};
const click = (element) => element?.dispatchEvent(new MouseEvent("click", { bubbles: true }));
read();
let hovers = 0;
let shown = 0;
for (const figure of figures ? document.querySelectorAll(".js-plotly-plot") : []) {
  const uid = figure._fullLayout._uid;
  figure._fullData.forEach((trace, curveNumber) => {
    if (trace.visible !== true || trace.hoverinfo === "skip") return;
    const points = trace.type === "heatmap" ? [...trace.z].flatMap((row, r) => [...row].map((_, c) => [r, c])) : [...trace.x.keys()];
    // Of thousands of cells, some.
    const every = Math.ceil(points.length / 200);
    for (const pointNumber of points.filter((_, index) => index % every === 0)) {
      // Of a figure with one name, plotly shows a hover text every 50 ms.
      figure._fullLayout._uid = `shown${shown++}`;
      Plotly.Fx.hover(figure, [{ curveNumber, pointNumber }], (trace.xaxis ?? "x") + (trace.yaxis ?? "y"));
      const label = figure.querySelector(".hoverlayer");
      if (label.querySelector("text")) hovers += 1;
      for (const text of label.querySelectorAll("text")) texts.add(text.textContent);
    }
  });
  figure._fullLayout._uid = uid;
  scan();
  for (const menu of (figure._fullLayout.updatemenus ?? []).keys()) {
    const entries = figure._fullLayout.updatemenus[menu].buttons.length;
    for (let entry = 0; entry < Math.min(entries, 4); entry++) {
      click(figure.querySelectorAll(".updatemenu-header")[menu]);
      read();
      click(figure.querySelectorAll(".updatemenu-dropdown-button")[entry]);
      read();
    }
  }
}
return { faults: [...faults], texts: [...texts], hovers, body: document.body?.textContent ?? document.documentElement.textContent, title: document.title };
