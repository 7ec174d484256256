// Makes elements. Every text goes through textContent, so that no label can become markup.

const SVG = "http://www.w3.org/2000/svg";

function fill(element, properties, children) {
  for (const [name, value] of Object.entries(properties ?? {})) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name === "value" || name === "checked" || name === "disabled") element[name] = value;
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

export function h(tag, properties, ...children) {
  return fill(document.createElement(tag), properties, children);
}

export function svg(tag, properties, ...children) {
  return fill(document.createElementNS(SVG, tag), properties, children);
}

export function show(parent, ...children) {
  parent.replaceChildren(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false));
}

export function button(text, onclick, properties = {}) {
  return h("button", { type: "button", onclick, ...properties }, text);
}

export function field(text, input) {
  return h("label", { class: "field" }, h("span", {}, text), input);
}

export function badge(text, kind = "") {
  return h("span", { class: `badge ${kind}` }, text);
}

// A part that scrolls sideways where the screen is narrow; the keyboard can scroll it too.
export function scroll(name, ...children) {
  return h("div", { class: "scroll", role: "region", tabindex: 0, "aria-label": name }, children);
}

let counter = 0;
export function freshId(prefix) {
  counter += 1;
  return `${prefix}-${counter}`;
}

let noticeTimer;
export function notice(text) {
  const place = document.getElementById("notice");
  place.textContent = text;
  clearTimeout(noticeTimer);
  noticeTimer = setTimeout(() => { place.textContent = ""; }, 8000);
}

// Asks before something that cannot be seen to be undone; resolves to true or false.
export function confirmed(title, text, action) {
  return new Promise((resolve) => {
    const heading = freshId("dialog");
    const dialog = h("dialog", { "aria-labelledby": heading },
      h("h2", { id: heading }, title), h("p", {}, text),
      h("div", { class: "row" },
        button(action, () => dialog.close("yes"), { class: "main" }),
        button("Cancel", () => dialog.close(""))));
    dialog.addEventListener("close", () => { dialog.remove(); resolve(dialog.returnValue === "yes"); });
    document.body.append(dialog);
    dialog.showModal();
  });
}
