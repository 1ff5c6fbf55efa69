"use strict";
// Draws the figures that the page carries as JSON; each when it comes into view.
(() => {
  const figures = JSON.parse(document.getElementById("figures").textContent);
  const drawn = new Set();
  const zoomed = new Set();
  const color = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

  function themed(figure) {
    const layout = structuredClone(figure.layout);
    layout.paper_bgcolor = layout.plot_bgcolor = "rgba(0,0,0,0)";
    layout.font = { family: getComputedStyle(document.body).fontFamily, size: 12.5, color: color("--ink") };
    layout.hoverlabel = { bgcolor: color("--card"), bordercolor: color("--line"), font: { color: color("--ink") } };
    layout.modebar = { bgcolor: "rgba(0,0,0,0)", color: color("--line"), activecolor: color("--accent") };
    for (const name of ["xaxis", "yaxis"]) {
      const axis = (layout[name] ||= {});
      axis.gridcolor = color("--grid");
      axis.zerolinecolor = color("--grid");
      if (zoomed.has(figure.workload)) axis.rangemode = "normal";
    }
    return layout;
  }

  function draw(figure) {
    Plotly.react(figure.id, structuredClone(figure.data), themed(figure), {
      displaylogo: false, responsive: true, displayModeBar: "hover",
      modeBarButtons: [["toImage", "zoom2d", "pan2d", "resetScale2d"]],
    });
    drawn.add(figure.id);
  }

  const byId = new Map(figures.map((figure) => [figure.id, figure]));
  const inView = new IntersectionObserver((entries) => {
    for (const entry of entries) {
      if (entry.isIntersecting && !drawn.has(entry.target.id)) draw(byId.get(entry.target.id));
    }
  }, { rootMargin: "400px" });
  for (const figure of figures) inView.observe(document.getElementById(figure.id));

  const redraw = () => figures.filter((figure) => drawn.has(figure.id)).forEach(draw);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
  for (const box of document.querySelectorAll("[data-zoom]")) {
    const number = Number(box.dataset.zoom);
    box.addEventListener("change", () => {
      box.checked ? zoomed.add(number) : zoomed.delete(number);
      redraw();
    });
  }
  addEventListener("beforeprint", () => figures.filter((figure) => !drawn.has(figure.id)).forEach(draw));
})();
