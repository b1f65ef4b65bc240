// Pages are whole without this. With it a page fetches itself again when the shop says that there is something new,
// and puts what changed in the place of what was there: focus, scrolling and what was unfolded stay.
"use strict";

const main = document.querySelector("main[data-pace]");
const connection = document.getElementById("connection");
const pause = document.getElementById("pause");
const said = document.getElementById("news");
const still = matchMedia("(prefers-reduced-motion: reduce)");

/** Looked at again this often in any case: times go on. */
const ANYWAY = 15_000;
/** An answer that takes longer will not come: the machine may have slept, or the network changed. */
const PATIENCE = 15_000;
/** What is new is told to screen readers this often at most. */
const TELL = 10_000;

let paused = false;
let looking = false;
let wanted = false;
let looked = performance.now();
let timer = 0;
let unsaid = {};
let told = -TELL;

/** Makes `now` what `next` is, with as few changes as there are differences. */
function become(now, next) {
  if (now.nodeType !== next.nodeType || now.nodeName !== next.nodeName) {
    now.replaceWith(next);
    return;
  }
  if (now.nodeType !== Node.ELEMENT_NODE) {
    if (now.nodeValue !== next.nodeValue) now.nodeValue = next.nodeValue;
    return;
  }
  if (now.isEqualNode(next)) return;
  // What somebody is typing, or has unfolded, is theirs.
  const theirs = now.nodeName === "DETAILS" ? ["open"] : ["INPUT", "SELECT"].includes(now.nodeName) ? ["value"] : [];
  for (const { name } of [...now.attributes]) {
    if (!next.hasAttribute(name) && !theirs.includes(name)) now.removeAttribute(name);
  }
  for (const { name, value } of next.attributes) {
    if (now.getAttribute(name) !== value && !theirs.includes(name)) now.setAttribute(name, value);
  }
  children(now, next);
}

/** By its attributes: a form's own id would be a field of that name. */
const key = (node) => node.getAttribute?.("data-key") || node.getAttribute?.("id") || "";

function children(now, next) {
  const keyed = new Map([...now.children].filter(key).map((child) => [key(child), child]));
  let place = now.firstChild;
  for (const child of [...next.childNodes]) {
    const there = key(child) ? keyed.get(key(child)) : place && !key(place) ? place : undefined;
    if (!there) {
      now.insertBefore(child, place);
      arrived(now, child);
      continue;
    }
    if (there === place) place = place.nextSibling;
    else now.insertBefore(there, place);
    become(there, child);
  }
  while (place) {
    const gone = place;
    place = place.nextSibling;
    gone.remove();
  }
}

/** What came newly stands out for a moment, and is told. */
function arrived(list, child) {
  if (child.nodeType !== Node.ELEMENT_NODE) return;
  if (list.classList.contains("news")) {
    if (!still.matches) {
      const fresh = getComputedStyle(child).getPropertyValue("--fresh");
      child.animate({ backgroundColor: [fresh, "transparent"] }, { duration: 1_500, easing: "ease-out" });
    }
    const kind = list.dataset.counts;
    unsaid[kind] = (unsaid[kind] ?? 0) + 1;
  } else if (list.parentNode?.classList.contains("phone")) {
    unsaid["told by text message"] = (unsaid["told by text message"] ?? 0) + 1;
    list.scrollTop = list.scrollHeight;
  }
}

function tell() {
  const kinds = Object.entries(unsaid);
  if (kinds.length === 0 || performance.now() - told < TELL) return;
  said.textContent = kinds.map(([kind, number]) => `${number} ${kind}`).join(", ");
  unsaid = {};
  told = performance.now();
}

async function look() {
  if (looking) {
    wanted = true;
    return;
  }
  looking = true;
  wanted = false;
  looked = performance.now();
  try {
    const signal = AbortSignal.timeout(PATIENCE);
    const response = await fetch(location.href, { headers: { accept: "text/html" }, cache: "no-store", signal });
    const page = new DOMParser().parseFromString(await response.text(), "text/html");
    const next = page.querySelector("main[data-pace]");
    if (next && !paused) {
      document.title = page.title;
      become(main, next);
      become(document.querySelector("header nav"), page.querySelector("header nav"));
      tell();
    }
    // What is no page of ours is a refusal: the shop was opened again, with another token.
    connected(Boolean(next));
  } catch {
    connected(false);
  }
  looking = false;
  if (wanted) soon();
}

/** Looks as soon as the page's pace allows. */
function soon() {
  if (paused || timer || document.hidden) return;
  const wait = Math.max(0, looked + Number(main.dataset.pace) - performance.now());
  timer = setTimeout(() => {
    timer = 0;
    if (!paused) look();
  }, wait);
}

function connected(yes) {
  connection.textContent = paused ? "Paused" : yes ? "Live" : "Not connected: what you see may be old";
  connection.classList.toggle("lost", !yes && !paused);
  connection.classList.toggle("paused", paused);
}

function listen() {
  let source;
  const open = () => {
    source = new EventSource("/live");
    source.addEventListener("changed", soon);
    source.addEventListener("open", () => connected(true));
    source.addEventListener("error", () => connected(false));
  };
  document.addEventListener("visibilitychange", () => {
    source.close();
    if (!document.hidden) {
      open();
      soon();
    }
  });
  open();
  setInterval(() => {
    tell();
    if (performance.now() - looked > ANYWAY) soon();
  }, 1_000);
}

if (main) {
  document.getElementById("live").hidden = false;
  for (const list of document.querySelectorAll(".phone ol")) list.scrollTop = list.scrollHeight;
  pause.addEventListener("click", () => {
    paused = !paused;
    pause.textContent = paused ? "Resume" : "Pause";
    connected(true);
    if (!paused) soon();
  });
  listen();
}
