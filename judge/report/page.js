"use strict";
// Narrows the list of answers. All it knows it reads from the page's own elements, and all it writes is text or `hidden`.
(() => {
  document.documentElement.classList.add("live");
  const form = document.getElementById("filter");
  const section = document.getElementById("rows");
  const tally = document.getElementById("tally");
  const nothing = document.getElementById("nothing");
  const OWN = ["split", "family", "type", "article", "row"]; // of a question
  const SAID = ["verdict", "reason", "run", "change"]; // of an answer to it
  const cards = [...document.querySelectorAll(".q")].map((node) => ({
    node, data: node.dataset, said: [...node.querySelectorAll(".said")].map((one) => one.dataset), text: "",
  }));
  const answers = cards.reduce((sum, card) => sum + card.said.length, 0);
  const bare = (text) => text.normalize("NFKD").replace(/\p{M}+/gu, "").toLowerCase();
  const passage = (number) => document.querySelector(`#p${number} .text`).textContent;
  const kept = [...document.querySelectorAll(".kept")]; // the snippets, seen in print alone
  let row = "";

  function textOf(card) {
    if (!card.text) {
      const parts = [...card.node.querySelectorAll(".text, .title, .why")].map((one) => one.textContent);
      card.text = bare(parts.join("\n"));
    }
    return card.text;
  }

  function chosen() {
    const state = new Map();
    for (const control of form.elements) if (control.name && control.value) state.set(control.name, control.value);
    if (row) state.set("row", row);
    return state;
  }

  function filter() {
    const state = chosen();
    const own = OWN.filter((name) => state.has(name));
    const said = SAID.filter((name) => state.has(name));
    const words = bare(state.get("q") || "").split(/\s+/).filter(Boolean);
    const needed = new Set();
    let seen = 0, shown = 0;
    for (const card of cards) {
      const fits = own.every((name) => card.data[name] === state.get(name));
      const left = fits ? card.said.filter((one) => said.every((name) => (one[name] || "") === state.get(name))).length : 0;
      const keep = left > 0 && (!words.length || words.every((word) => textOf(card).includes(word)));
      if (card.node.hidden === keep) card.node.hidden = !keep;
      if (keep) { seen += left; shown += 1; needed.add(`p${card.data.passage}`); }
    }
    for (const one of kept) one.hidden = !needed.has(one.id);
    const number = (value) => value.toLocaleString("en");
    const all = `${number(answers)} answer${answers === 1 ? "" : "s"}`;
    tally.textContent = seen !== answers ? `${number(seen)} of ${all}` : answers === 1 ? all : `All ${all}`;
    nothing.hidden = shown > 0;
    form.classList.toggle("narrowed", state.size > 0);
    return state;
  }

  function write() {
    const state = filter();
    const hash = [...state].map(([name, value]) => `${name}=${encodeURIComponent(value)}`).join("&");
    try { history.replaceState(null, "", `#${hash || "rows"}`); } catch { /* a page in a frame may have no history */ }
  }

  function read(scroll) {
    const hash = location.hash.slice(1);
    if (hash && !hash.includes("=")) return false; // a place on the page
    const state = new Map();
    for (const part of hash.split("&")) {
      const at = part.indexOf("=");
      let value = part.slice(at + 1);
      try { value = decodeURIComponent(value.replace(/\+/g, " ")); } catch { /* as it stands */ }
      if (at > 0) state.set(part.slice(0, at), value);
    }
    for (const control of form.elements) if (control.name) control.value = state.get(control.name) || "";
    row = state.get("row") || "";
    filter();
    if (state.size && scroll) section.scrollIntoView();
    return true;
  }

  function reset() {
    for (const control of form.elements) if (control.name) control.value = "";
    row = "";
    write();
  }

  let waiting = 0;
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("change", () => { row = ""; write(); });
  form.addEventListener("input", (event) => {
    if (event.target.type !== "search") return;
    row = "";
    clearTimeout(waiting);
    waiting = setTimeout(write, 120);
  });
  for (const button of document.querySelectorAll(".reset")) button.addEventListener("click", reset);
  addEventListener("hashchange", () => read(true));
  addEventListener("keydown", (event) => {
    if (event.key !== "/" || event.ctrlKey || event.metaKey || event.altKey || event.target.closest("input, select, textarea")) return;
    event.preventDefault();
    form.elements.q.focus();
  });

  // Snippets are kept once, at the end, and lent to whoever opens one.
  document.addEventListener("toggle", (event) => {
    const place = event.target.querySelector?.(".lent");
    if (place && event.target.open && !place.dataset.full) {
      place.dataset.full = "1";
      place.className = "text prose lent";
      place.textContent = passage(event.target.closest(".q").dataset.passage);
    }
  }, true);

  for (const button of document.querySelectorAll("th button")) {
    button.addEventListener("click", () => {
      const head = button.closest("th");
      const body = head.closest("table").tBodies[0];
      const at = head.cellIndex;
      const down = head.getAttribute("aria-sort") ? head.getAttribute("aria-sort") === "ascending" : at > 0;
      for (const other of head.parentNode.cells) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", down ? "descending" : "ascending");
      const key = (line) => line.cells[at].dataset.key;
      const text = at === 0;
      const rows = [...body.rows].sort((a, b) => {
        const order = text ? key(a).localeCompare(key(b)) : Number(key(a)) - Number(key(b));
        return down ? -order : order;
      });
      body.append(...rows);
    });
  }

  read(false) || filter();
  if (location.hash.includes("=")) section.scrollIntoView();
})();
