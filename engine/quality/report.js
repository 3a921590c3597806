"use strict";
// What hovering and the large view add; without this script the page is complete.
(() => {
  const figures = [...document.querySelectorAll(".gallery figure")].filter((f) => f.querySelector("svg"));
  const tip = document.getElementById("tip");
  const viewer = document.getElementById("viewer");
  const stage = viewer.querySelector(".viewer-stage");
  const title = viewer.querySelector(".viewer-title");
  const facts = viewer.querySelector(".viewer-facts");
  const help = matchMedia("(hover: none)").matches
    ? "Tap a mask to see its numbers."
    : "Point at a mask, or press ↑ ↓, to see its numbers. ← → other photos, M masks, Esc back.";
  let current = -1;
  let lit = null;

  // The browser's own tooltips come late, and would cover ours: keep their text on the path.
  for (const note of document.querySelectorAll(".masks title")) {
    note.parentNode.dataset.facts = note.textContent;
    note.remove();
  }

  function light(path) {
    if (lit === path) return;
    if (lit) {
      lit.classList.remove("on");
      lit.ownerSVGElement.classList.remove("focused");
    }
    lit = path;
    if (path) {
      path.classList.add("on");
      path.ownerSVGElement.classList.add("focused");
    }
    if (viewer.open) facts.textContent = path ? path.dataset.facts : help;
  }

  function showTip(event) {
    tip.textContent = lit.dataset.facts.replaceAll(" · ", "\n");
    tip.hidden = false;
    const { offsetWidth: width, offsetHeight: height } = tip;
    const left = event.clientX + 16 + width > innerWidth ? event.clientX - width - 12 : event.clientX + 16;
    const top = event.clientY + 18 + height > innerHeight ? event.clientY - height - 10 : event.clientY + 18;
    tip.style.transform = `translate(${Math.max(4, left)}px, ${Math.max(4, top)}px)`;
  }

  function pathAt(event) {
    return event.target instanceof Element ? event.target.closest(".masks path") : null;
  }

  document.addEventListener("pointermove", (event) => {
    if (event.pointerType === "touch") return;
    const path = pathAt(event);
    // Inside the viewer a mask chosen by key stays until the pointer finds another.
    if (path || !viewer.open) light(path);
    if (path && !viewer.open) showTip(event);
    else tip.hidden = true;
  });
  document.documentElement.addEventListener("pointerleave", () => {
    light(null);
    tip.hidden = true;
  });
  addEventListener("scroll", () => { tip.hidden = true; }, { passive: true });

  function show(index) {
    current = (index + figures.length) % figures.length;
    const figure = figures[current];
    light(null);
    stage.replaceChildren(
      figure.querySelector("img").cloneNode(),
      figure.querySelector("svg").cloneNode(true),
    );
    const image = figure.querySelector("img");
    stage.style.setProperty("--ratio", image.getAttribute("width") / image.getAttribute("height"));
    title.textContent = `${figure.querySelector("figcaption").innerText.replace(/\s+/g, " ")} · ${current + 1} of ${figures.length}`;
    facts.textContent = help;
  }

  function open(index) {
    tip.hidden = true;
    viewer.showModal();
    show(index);
  }

  function step(by) {
    const paths = [...stage.querySelectorAll("path")];
    if (paths.length === 0) return;
    const from = paths.indexOf(lit);
    light(paths[from < 0 ? (by > 0 ? 0 : paths.length - 1) : (from + by + paths.length) % paths.length]);
  }

  function toggleMasks() {
    const off = viewer.classList.toggle("masks-off");
    viewer.querySelector("[data-act=masks]").setAttribute("aria-pressed", String(!off));
  }

  const acts = {
    masks: toggleMasks,
    previous: () => show(current - 1),
    next: () => show(current + 1),
    close: () => viewer.close(),
  };
  const keys = {
    ArrowLeft: acts.previous,
    ArrowRight: acts.next,
    ArrowUp: () => step(-1),
    ArrowDown: () => step(1),
    m: toggleMasks,
    M: toggleMasks,
  };

  figures.forEach((figure, index) => {
    const link = figure.querySelector("a");
    link.addEventListener("click", (event) => {
      if (event.ctrlKey || event.metaKey || event.shiftKey) return;
      event.preventDefault();
      open(index);
    });
  });
  viewer.addEventListener("click", (event) => {
    const button = event.target.closest("button");
    if (button) acts[button.dataset.act]();
    else light(pathAt(event));
  });
  viewer.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || !keys[event.key]) return;
    event.preventDefault();
    keys[event.key]();
  });
  viewer.addEventListener("close", () => {
    light(null);
    stage.replaceChildren();
    figures[current]?.querySelector("a").focus({ preventScroll: false });
  });
})();
