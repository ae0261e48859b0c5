
"use strict";
(() => {
  const ROWS = 100;
  const find = (id) => document.getElementById(id);
  const data = JSON.parse(find("unused-data").textContent);
  const form = find("unused-search");
  const input = find("unused-text");
  const body = find("unused-table").tBodies[0];
  const status = find("unused-status");
  const previous = find("unused-previous");
  const next = find("unused-next");
  let lowered = null; // made when the first letter is typed
  let last = 0;
  const ids = data.gaps.map((gap) => (last += gap));
  let matches = [];
  let start = 0;

  function search() {
    const wanted = input.value.toLowerCase().replaceAll(" ", "␣"); // as texts show them
    const kind = data.names.indexOf(form.elements.kind.value);
    if (wanted && !lowered) lowered = data.texts.map((text) => text.toLowerCase());
    const id = /^[0-9]+$/.test(wanted) ? Number(wanted) : -1;
    matches = [];
    for (let at = 0; at < ids.length; at += 1) {
      if (kind >= 0 && Number(data.kinds[at]) !== kind) continue;
      if (!wanted || ids[at] === id || lowered[at].includes(wanted)) matches.push(at);
    }
    start = 0;
    show();
  }

  function cell(tag, text, name) {
    const made = document.createElement(tag);
    if (name) made.className = name;
    if (tag === "th") {
      made.scope = "row";
      made.appendChild(document.createElement("bdi")).textContent = text;
    } else {
      made.textContent = text;
    }
    return made;
  }

  function row(at) {
    const made = document.createElement("tr");
    made.append(
      cell("th", data.texts[at]),
      cell("td", ids[at].toLocaleString("en"), "number"),
      cell("td", data.names[Number(data.kinds[at])]),
    );
    return made;
  }

  function show() {
    const end = Math.min(start + ROWS, matches.length);
    body.replaceChildren(...matches.slice(start, end).map(row));
    body.closest(".box").scrollTop = 0;
    const number = (value) => value.toLocaleString("en");
    const tokens = matches.length === 1 ? "token" : "tokens";
    status.textContent = matches.length
      ? `${number(start + 1)} to ${number(end)} of ${number(matches.length)} ${tokens}`
      : "No unused token matches";
    previous.setAttribute("aria-disabled", start === 0);
    next.setAttribute("aria-disabled", end === matches.length);
  }

  function turn(button, by) {
    button.addEventListener("click", () => {
      if (button.getAttribute("aria-disabled") === "true") return;
      start += by;
      show();
    });
  }

  turn(previous, -ROWS);
  turn(next, ROWS);
  form.addEventListener("input", search);
  form.addEventListener("submit", (event) => event.preventDefault());
  form.hidden = false;
  previous.parentElement.hidden = false;
  search();
})();
