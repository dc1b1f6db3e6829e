// Fills the page with decisions as the server sends them. Text goes in as text, never as markup.
"use strict";

const WORDS = { approve: "approved", review: "to review", block: "blocked" };
const ROWS = 40;
const table = document.querySelector("#decisions");
const body = table.querySelector("tbody");
const alerts = document.querySelector("#alerts");
const rate = document.querySelector("#rate");
const state = document.querySelector("#state");
const kinds = table.dataset.kinds.split(" ");
let last = performance.now();

function make(tag, className, text) {
  const element = document.createElement(tag);
  if (className) element.className = className;
  if (text !== undefined) element.textContent = text;
  return element;
}

function link(href, text) {
  const element = make("a", "", text);
  element.href = href;
  return element;
}

function query(values) {
  return new URLSearchParams(values).toString();
}

function percent(value) {
  if (value === null) return "none";
  const hundred = value * 100;
  return `${hundred.toFixed(hundred >= 1 ? 1 : 3)} %`;
}

function money(value) {
  return value.toLocaleString("en", { minimumFractionDigits: 2, maximumFractionDigits: 2 });
}

function clock(ms) {
  const instant = new Date(ms);
  return Number.isNaN(instant.getTime())
    ? `${ms} ms`
    : instant.toISOString().slice(0, 19).replace("T", " ");
}

function row(decision) {
  const line = make("tr", `${decision.decision} fresh`);
  line.append(make("td", "when", clock(decision.time)));
  const event = make("td");
  event.append(link(`/ui/event?${query({ id: decision.event })}`, decision.event));
  line.append(event);
  decision.entities.forEach((id, place) => {
    const cell = make("td");
    cell.append(link(`/ui/entity?${query({ kind: kinds[place], id })}`, id));
    line.append(cell);
  });
  line.append(make("td", "number", money(decision.amount)));
  line.append(make("td", "number", percent(decision.score)));
  const verdict = make("td");
  verdict.append(make("span", `pill ${decision.decision}`, WORDS[decision.decision]));
  line.append(verdict);
  return line;
}

function alertItem(decision) {
  const item = make("li", `${decision.decision} fresh`);
  const anchor = link(`/ui/event?${query({ id: decision.event })}`);
  anchor.append(
    make("span", `pill ${decision.decision}`, WORDS[decision.decision]),
    make("span", "amount", money(decision.amount)),
    make("span", "score", percent(decision.score)),
    make("span", "why", decision.reason),
  );
  item.append(anchor);
  return item;
}

function cut(list) {
  while (list.children.length > ROWS) list.lastElementChild.remove();
}

function show(message) {
  const { decisions, count, totals } = JSON.parse(message.data);
  for (const [decision, total] of Object.entries(totals)) {
    document.querySelector(`.tile.${decision} .value`).textContent = total.toLocaleString("en");
  }
  document.querySelector("#empty")?.remove();
  for (const decision of decisions) {
    body.prepend(row(decision));
    if (decision.decision !== "approve") {
      document.querySelector("#calm")?.remove();
      alerts.prepend(alertItem(decision));
    }
  }
  cut(body);
  cut(alerts);
  const now = performance.now();
  rate.textContent = Math.round((count * 1000) / Math.max(now - last, 1)).toLocaleString("en");
  last = now;
}

const source = new EventSource("/ui/live");
source.addEventListener("open", () => {
  last = performance.now();
  state.textContent = "live";
  state.className = "state on";
});
source.addEventListener("error", () => {
  state.textContent = "no connection";
  state.className = "state off";
});
source.addEventListener("decisions", show);
