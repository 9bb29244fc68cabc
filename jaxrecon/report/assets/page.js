// Reading values off the charts, pictures in full size, and the copy button.
"use strict";
(function () {
  const number = (v) => {
    const size = Math.abs(v);
    if (size >= 1e4) return (v / 1000).toPrecision(4).replace(/\.?0+$/, "") + "k";
    return size && size < 1e-3 ? v.toExponential(2) : String(+v.toPrecision(4));
  };
  document.querySelectorAll(".chart svg[data-chart]").forEach((svg) => {
    const chart = JSON.parse(svg.dataset.chart);
    const card = svg.closest(".chart");
    const cross = document.createElementNS("http://www.w3.org/2000/svg", "line");
    cross.setAttribute("class", "cross");
    const tip = document.createElement("div");
    tip.className = "tip";
    tip.hidden = true;
    card.append(tip);
    const [left, right, top, floor] = chart.box, [low, high] = chart.range;
    svg.addEventListener("pointermove", (event) => {
      const area = svg.getBoundingClientRect();
      const scale = area.width / svg.viewBox.baseVal.width;
      const wanted = low + (((event.clientX - area.left) / scale - left) / (right - left)) * (high - low);
      const nearest = (xs) => xs.reduce((best, x, i) =>
        Math.abs(x - wanted) < Math.abs(xs[best] - wanted) ? i : best, 0);
      const lead = chart.series.reduce((a, b) => (b.x.length > a.x.length ? b : a));
      const at = lead.x[nearest(lead.x)];
      const x = left + ((at - low) / (high - low)) * (right - left);
      for (const [name, value] of [["x1", x], ["x2", x], ["y1", top], ["y2", floor]]) {
        cross.setAttribute(name, value);
      }
      svg.append(cross);
      tip.replaceChildren(document.createTextNode(number(at)));
      for (const series of chart.series) {
        const row = document.createElement("div"), dot = document.createElement("i");
        dot.style.background = `var(--c${series.colour})`;
        const y = series.y[nearest(series.x)];
        row.append(dot, `${series.name}  ${number(y)}`);
        tip.append(row);
      }
      tip.hidden = false;
      const place = x * scale + 26;
      const flip = place + tip.offsetWidth > area.width;
      tip.style.left = (flip ? Math.max(x * scale - tip.offsetWidth, 4) : place) + "px";
      tip.style.top = top * scale + 16 + "px";
    });
    svg.addEventListener("pointerleave", () => { tip.hidden = true; cross.remove(); });
  });

  const dialog = document.querySelector("dialog");
  document.querySelectorAll(".pictures img").forEach((image) => {
    image.addEventListener("click", () => {
      dialog.querySelector("img").src = image.src;
      dialog.querySelector("p").textContent = image.alt;
      dialog.showModal();
    });
  });
  if (dialog) dialog.addEventListener("click", () => dialog.close());

  document.querySelectorAll(".command button").forEach((button) => {
    button.addEventListener("click", async () => {
      const text = button.parentElement.querySelector("pre").textContent;
      try {
        await navigator.clipboard.writeText(text);
        button.textContent = "copied";
      } catch {
        getSelection().selectAllChildren(button.parentElement.querySelector("pre"));
        button.textContent = "selected";
      }
      setTimeout(() => { button.textContent = "copy"; }, 1500);
    });
  });
})();
