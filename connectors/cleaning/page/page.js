"use strict";
(() => {
  const rows = [...document.querySelectorAll("#list > tbody > tr")];
  let at = -1;
  const choose = (to, scroll) => {
    if (!rows.length) return;
    if (at >= 0) rows[at].classList.remove("chosen");
    at = Math.max(0, Math.min(rows.length - 1, to));
    rows[at].classList.add("chosen");
    if (scroll) rows[at].scrollIntoView({ block: "nearest" });
  };
  const told = /^#r(\d{1,3})$/.exec(location.hash);
  if (told) choose(Number(told[1]), true);
  for (const [i, row] of rows.entries()) row.addEventListener("click", () => choose(i, false));
  let busy = false;
  document.addEventListener("submit", (event) => {
    if (busy) event.preventDefault();
    busy = true;
    document.body.classList.add("busy");
  });
  addEventListener("pageshow", () => {
    busy = false;
    document.body.classList.remove("busy");
  });
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.target instanceof Element && event.target.closest("input, select, textarea")) {
      if (event.key === "Escape") event.target.blur();
      return;
    }
    if (event.key === "j" || event.key === "k") choose(at + (event.key === "j" ? 1 : -1), true);
    else if (event.key === "/") document.querySelector("input[name=text]").focus();
    else if (at >= 0 && event.key === "o") {
      const row = rows[at].querySelector("details");
      if (row) row.open = !row.open;
    } else if (at >= 0 && "aru".includes(event.key)) {
      const button = rows[at].querySelector(`button[data-key="${event.key}"]`);
      if (!button || document.querySelector(".ask")) return;
      button.click();
    } else return;
    event.preventDefault();
  });
})();
