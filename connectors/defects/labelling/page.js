"use strict";
(() => {
  const form = document.querySelector("#one");
  const stage = document.querySelector("#stage");
  const list = document.querySelector("#boxes");
  const corners = ["left", "top", "right", "bottom"];
  const size = stage ? [stage.viewBox.baseVal.width, stage.viewBox.baseVal.height] : [0, 0];
  const rects = new Map();
  let empty, numbers = 0, start = null, drawn = null;

  const field = (row, name) => row.querySelector(`[data-corner=${name}]`);
  const within = (value, most) => Math.min(Math.max(value, 0), most);
  const values = (row) => corners.map((name) => {
    const text = field(row, name).value;
    return text === "" ? NaN : Number(text);
  });
  const place = (rect, [left, top, right, bottom]) => {
    rect.setAttribute("x", left);
    rect.setAttribute("y", top);
    rect.setAttribute("width", Math.max(right - left, 0));
    rect.setAttribute("height", Math.max(bottom - top, 0));
  };
  const rectangle = () => {
    const made = document.createElementNS("http://www.w3.org/2000/svg", "rect");
    stage.append(made);
    return made;
  };
  const show = (row) => {
    const box = values(row);
    if (!box.some(Number.isNaN)) place(rects.get(row), box);
  };
  const write = (row, box) => {
    corners.forEach((name, i) => { field(row, name).value = Math.round(box[i] * 10) / 10; });
    show(row);
  };
  const remove = (row) => {
    rects.get(row).remove();
    rects.delete(row);
    row.remove();
  };
  const adopt = (row) => {
    const rect = rectangle();
    const number = numbers++;
    row.querySelector("legend span").textContent = number + 1;
    for (const input of row.querySelectorAll("input")) input.name = `${input.dataset.corner}-${number}`;
    rect.setAttribute("tabindex", "0");
    rect.setAttribute("role", "button");
    rect.setAttribute("aria-label", `Box ${number + 1}: arrows move it, with Shift they size it, Delete takes it away`);
    rects.set(row, rect);
    const take = row.querySelector(".take");
    take.hidden = false;
    take.addEventListener("click", () => remove(row));
    row.addEventListener("input", () => show(row));
    rect.addEventListener("focus", () => row.classList.add("chosen"));
    rect.addEventListener("blur", () => row.classList.remove("chosen"));
    rect.addEventListener("keydown", (event) => edit(row, event));
    show(row);
    return rect;
  };
  const add = (box) => {
    const row = empty.cloneNode(true);
    list.append(row);
    const rect = adopt(row);
    write(row, box);
    list.closest("details").open = true;
    return rect;
  };
  const edit = (row, event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const step = Math.max(1, Math.round(Math.max(...size) / 100));
    const way = { ArrowLeft: [-step, 0], ArrowRight: [step, 0], ArrowUp: [0, -step], ArrowDown: [0, step] }[event.key];
    if (way) {
      let [left, top, right, bottom] = values(row);
      if (event.shiftKey) {
        right = Math.max(left + 1, within(right + way[0], size[0]));
        bottom = Math.max(top + 1, within(bottom + way[1], size[1]));
      } else {
        const x = within(left + way[0], size[0] - (right - left)) - left;
        const y = within(top + way[1], size[1] - (bottom - top)) - top;
        [left, right, top, bottom] = [left + x, right + x, top + y, bottom + y];
      }
      write(row, [left, top, right, bottom]);
    } else if (event.key === "Delete" || event.key === "Backspace") remove(row);
    else return;
    event.preventDefault();
    event.stopPropagation();
  };

  if (form) {
    const rows = [...list.children];
    empty = rows.pop();
    empty.remove();
    for (const rect of stage.querySelectorAll("rect")) rect.remove();
    for (const row of rows) adopt(row);
    document.body.classList.add("drawing");
    const point = (event) => {
      const found = new DOMPoint(event.clientX, event.clientY).matrixTransform(stage.getScreenCTM().inverse());
      return [within(found.x, size[0]), within(found.y, size[1])];
    };
    const span = (event) => {
      const end = point(event);
      return [Math.min(start[0], end[0]), Math.min(start[1], end[1]), Math.max(start[0], end[0]), Math.max(start[1], end[1])];
    };
    const stop = () => {
      if (drawn) drawn.remove();
      start = drawn = null;
    };
    stage.addEventListener("pointerdown", (event) => {
      if (event.button || !event.isPrimary) return;
      start = point(event);
      stage.setPointerCapture(event.pointerId);
    });
    stage.addEventListener("pointermove", (event) => {
      if (!start || !event.isPrimary) return;
      drawn = drawn || rectangle();
      place(drawn, span(event));
    });
    stage.addEventListener("pointerup", (event) => {
      if (!start || !event.isPrimary) return;
      const box = span(event);
      stop();
      // A click that slipped is no box.
      if (box[2] - box[0] >= Math.max(1, size[0] / 200) && box[3] - box[1] >= Math.max(1, size[1] / 200)) add(box).focus();
    });
    stage.addEventListener("pointercancel", stop);
    for (const path of JSON.parse(form.dataset.ahead)) new Image().src = form.dataset.base + path;
    const heat = document.querySelector("#heat");
    const way = document.querySelector("#heat-way");
    if (way) way.addEventListener("click", (event) => {
      if (heat.hasAttribute("href")) heat.removeAttribute("href");
      else heat.setAttribute("href", heat.dataset.href);
      event.preventDefault();
    });
  }

  let busy = false;
  document.addEventListener("submit", (event) => {
    const said = event.submitter ? event.submitter.value : "";
    if (rects.size && (said === "ok" || said === "unsure")) {
      if (!confirm(rects.size > 1 ? `Take the ${rects.size} boxes away?` : "Take the box away?")) {
        event.preventDefault();
        return;
      }
      for (const row of [...rects.keys()]) remove(row);
    }
    if (busy) event.preventDefault();
    busy = true;
    document.body.classList.add("busy");
  });
  addEventListener("pageshow", () => {
    busy = false;
    document.body.classList.remove("busy");
  });
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.repeat) return;
    if (event.target instanceof Element && event.target.closest("input:not([type=checkbox]), select, textarea")) {
      if (event.key === "Escape") event.target.blur();
      return;
    }
    const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
    if (form && key === "t") document.querySelector("#new").focus();
    else if (form && key === "b") add([size[0] * 0.4, size[1] * 0.4, size[0] * 0.6, size[1] * 0.6]).focus();
    else {
      const found = /^([a-z0-9]|Arrow(Left|Right))$/.test(key) && document.querySelector(`[data-key="${key}"]`);
      if (!found) return;
      found.click();
    }
    event.preventDefault();
  });
})();
