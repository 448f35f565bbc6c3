"use strict";
(() => {
  const root = document.documentElement;
  const find = (id) => document.getElementById(id);
  const source = find("data");
  const data = source ? JSON.parse(source.textContent) : null;
  const systemDark = window.matchMedia("(prefers-color-scheme: dark)");
  const isDark = () => (root.dataset.theme ? root.dataset.theme === "dark" : systemDark.matches);
  const LIGHTER = { "#000000": "#f2f2f2", "#0072B2": "#56a9e8", "#882255": "#d070a4", "#332288": "#9a8ce8", "#661100": "#d98a70" };
  const PERIOD = { steps: "environment steps", updates: "updates", minutes: "processor time (minutes)" };
  const colour = (c) => (isDark() && LIGHTER[c]) || c;
  const faint = (c, alpha) => {
    const n = parseInt(colour(c).slice(1), 16);
    return `rgba(${n >> 16},${(n >> 8) & 255},${n & 255},${alpha})`;
  };

  function layout(extra) {
    const css = getComputedStyle(root);
    const [ink, line] = [css.getPropertyValue("--ink").trim(), css.getPropertyValue("--line").trim()];
    const axis = { gridcolor: line, zerolinecolor: line, linecolor: ink, ticks: "outside", automargin: true };
    const merged = {
      paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", font: { color: ink, family: "system-ui, sans-serif" },
      margin: { l: 60, r: 16, t: 16, b: 48 }, modebar: { bgcolor: "rgba(0,0,0,0)", color: ink, activecolor: ink }, legend: { orientation: "h", y: 1.02, yanchor: "bottom" }, hovermode: "closest",
      ...extra,
    };
    merged.xaxis = { ...axis, ...extra.xaxis };
    merged.yaxis = { ...axis, ...extra.yaxis };
    return merged;
  }

  const CONFIG = { responsive: true, displaylogo: false };

  function smooth(values, width) {
    const half = (width - 1) / 2;
    return values.map((value, i) => {
      if (value === null || width === 1) return value;
      const near = values.slice(Math.max(0, i - half), i + half + 1).filter((v) => v !== null);
      return near.reduce((a, b) => a + b, 0) / near.length;
    });
  }

  function drawCurves() {
    const [quantity, task, x] = ["quantity", "task", "x"].map((id) => find(id).value);
    const width = Number(find("smoothing").value);
    const kind = data.quantities.find((one) => one.name === quantity);
    const traces = [];
    let skipped = 0;
    for (const variant of data.variants) {
      const curve = data.curves.find((c) => c.task === task && c.variant === variant.name && c.quantity === quantity);
      if (!curve || !find(`variant-${variant.name}`).checked) continue;
      const scale = x === "steps" ? 1 : curve[x === "updates" ? "updates_per_step" : "minutes_per_step"];
      if (scale === null) { skipped += 1; continue; }
      const at = curve.steps.map((s) => s * scale);
      const style = { color: colour(variant.color), dash: variant.dash, width: 2 };
      const group = { legendgroup: variant.name, hoverinfo: "skip", showlegend: false };
      if (find("intervals").checked && curve.low.some((v) => v !== null)) {
        const known = at.map((_, i) => i).filter((i) => curve.low[i] !== null && curve.high[i] !== null);
        const [low, high] = [smooth(curve.low, width), smooth(curve.high, width)];
        traces.push({ ...group, type: "scatter", mode: "lines", line: { width: 0 }, x: known.map((i) => at[i]), y: known.map((i) => low[i]) });
        traces.push({ ...group, type: "scatter", mode: "lines", line: { width: 0 }, fill: "tonexty", fillcolor: faint(variant.color, 0.2), x: known.map((i) => at[i]), y: known.map((i) => high[i]) });
      }
      if (find("runs").checked) {
        curve.runs.forEach((run, i) => traces.push({ type: "scatter", mode: "lines", legendgroup: variant.name, showlegend: false, name: `${variant.label}, seed ${curve.seeds[i]}`, line: { color: faint(variant.color, 0.55), width: 1 }, x: at, y: smooth(run, width) }));
      }
      traces.push({ type: "scatter", mode: kind.points || at.length < 5 ? "markers" : "lines", legendgroup: variant.name, name: variant.label, line: style, marker: { color: style.color, size: 7 }, x: at, y: smooth(curve.values, width) });
    }
    const random = quantity === "score" ? data.random[task] : quantity === "normalised" ? 0 : null;
    const shapes = random === null || random === undefined ? [] : [{ type: "line", xref: "paper", x0: 0, x1: 1, y0: random, y1: random, line: { dash: "dot", width: 1, color: "#888888" } }];
    Plotly.react("plot", traces, layout({
      shapes, xaxis: { title: { text: PERIOD[x] }, rangemode: "tozero" }, yaxis: { title: { text: kind.label }, type: kind.log ? "log" : "linear" },
    }), CONFIG);
    const lines = traces.filter((t) => t.showlegend !== false).length;
    const parts = [`${lines} ${lines === 1 ? "algorithm" : "algorithms"}; line: IQM over runs; band: ${data.interval}`];
    if (shapes.length) parts.push("dotted: random policy");
    if (width > 1) parts.push(`smoothed over ${width} points, for the eye alone`);
    if (x === "minutes") parts.push("time of a whole run, spread evenly over its steps");
    if (skipped) parts.push(`${skipped} without a value on this axis`);
    if (!lines) parts.push("nothing to draw: choose another quantity or task");
    find("said").textContent = `${parts.join("; ")}.`;
    find("plot").setAttribute("aria-label", `${kind.label} over ${PERIOD[x]}, ${find("task").selectedOptions[0].text}: ${traces.filter((t) => t.showlegend !== false).map((t) => t.name).join(", ")}`);
  }

  function drawHeadline(place) {
    const own = Array.isArray(data) ? data.find((one) => one.suite === place.dataset.suite) : data;
    if (!own || !own.headline.length) { place.closest("figure").remove(); return; }
    const rows = [...own.headline].reverse();
    const style = (row) => own.variants.find((v) => v.name === row.variant);
    const traces = rows.map((row) => ({
      type: "scatter", mode: "markers", x: [row.value], y: [style(row).label], marker: { color: colour(style(row).color), size: 11 }, showlegend: false, name: style(row).label,
      error_x: row.low === null ? undefined : { type: "data", symmetric: false, array: [row.high - row.value], arrayminus: [row.value - row.low], color: colour(style(row).color) },
    }));
    Plotly.react(place, traces, layout({ margin: { l: 90, r: 16, t: 8, b: 44 }, xaxis: { title: { text: "normalised area under the learning curve, all tasks" }, rangemode: "tozero" }, yaxis: { type: "category" } }), { ...CONFIG, displayModeBar: false });
  }

  function fillControls() {
    const add = (id, entries) => entries.forEach((entry) => find(id).add(new Option(entry.label, entry.name)));
    add("quantity", data.quantities);
    add("task", data.tasks);
    for (const variant of data.variants) {
      const [label, box] = [document.createElement("label"), document.createElement("input")];
      Object.assign(box, { type: "checkbox", checked: true, id: `variant-${variant.name}` });
      label.append(box, ` ${variant.label}`);
      find("variants").append(label);
    }
    find("controls").addEventListener("change", (event) => { offerTasks(event.target.id); drawCurves(); });
    offerTasks("");
  }

  function offerTasks(changed) {
    const has = (task, quantity) => data.curves.some((c) => c.task === task && c.quantity === quantity);
    if (changed === "task" && !has(find("task").value, find("quantity").value)) {
      const other = data.quantities.find((q) => has(find("task").value, q.name));
      if (other) find("quantity").value = other.name;
    }
    if (changed !== "task" && !has(find("task").value, find("quantity").value)) {
      const other = data.tasks.find((t) => has(t.name, find("quantity").value));
      if (other) find("task").value = other.name;
    }
  }

  function key(text) {
    const match = /^[≥<>≤\s]*([-−]?[\d,.]+(?:e-?\d+)?)\s*([kM%]?)/.exec(text);
    if (!match) return null;
    return Number(match[1].replace("−", "-").replaceAll(",", "")) * ({ k: 1e3, M: 1e6 }[match[2]] || 1);
  }

  function makeSortable(table) {
    const heads = [...table.tHead.rows[0].cells];
    heads.forEach((head, column) => {
      const button = document.createElement("button");
      button.type = "button";
      button.textContent = head.textContent;
      head.replaceChildren(button);
      button.addEventListener("click", () => {
        const up = head.getAttribute("aria-sort") !== "ascending";
        heads.forEach((other) => other.removeAttribute("aria-sort"));
        head.setAttribute("aria-sort", up ? "ascending" : "descending");
        const rows = [...table.tBodies[0].rows].map((row) => [row, row.cells[column].textContent.trim()]);
        const numeric = rows.some(([, text]) => key(text) !== null);
        rows.sort(([, a], [, b]) => {
          const [p, q] = [key(a), key(b)];
          if (numeric && (p === null || q === null)) return (p === null) - (q === null); // what has no number comes last
          return (up ? 1 : -1) * (numeric ? p - q : a.localeCompare(b));
        });
        table.tBodies[0].append(...rows.map(([row]) => row));
      });
    });
  }

  function draw() {
    if (!data) return;
    document.querySelectorAll(".headline").forEach(drawHeadline);
    if (find("plot")) drawCurves();
  }

  function showTheme() {
    find("theme").textContent = isDark() ? "Light" : "Dark";
    find("theme").setAttribute("aria-pressed", String(isDark()));
    draw();
  }

  document.querySelectorAll("table.sortable").forEach(makeSortable);
  if (find("controls")) fillControls();
  find("theme").addEventListener("click", () => { root.dataset.theme = isDark() ? "light" : "dark"; showTheme(); });
  systemDark.addEventListener("change", showTheme);
  window.addEventListener("beforeprint", () => document.querySelectorAll("#figures details").forEach((one) => { one.open = true; }));
  showTheme();
})();
