/* Completions to read: rows of all blocks, those that fit the filters, and one that is open.
   What is chosen stands in the address behind `#`, so that a view can be linked. */

const LISTED = 300; // rows that are listed at first, and with each click on "more"
const byId = (id) => document.getElementById(id);

let contents, rows, found, listed, open;
let view = {};
let written = null; // the fragment that the page itself wrote last

/* View and address */

function readAddress() {
  const given = new URLSearchParams(location.hash.slice(1));
  const statuses = given.get("status");
  view = {
    task: given.get("task") ?? "",
    model: given.get("model") ?? "",
    statuses: statuses === null ? null : new Set(statuses.split(",")),
    differs: given.has("differs"),
    text: given.get("text") ?? "",
    read: given.get("read") ?? "",
  };
}

function writeAddress() {
  const told = new URLSearchParams();
  for (const name of ["task", "model"]) if (view[name]) told.set(name, view[name]);
  if (view.statuses) told.set("status", [...view.statuses].join(","));
  if (view.differs) told.set("differs", "1");
  if (view.text) told.set("text", view.text);
  if (view.read) told.set("read", view.read);
  written = "#" + told;
  if (location.hash !== written) location.replace(written);
}

const nameOf = (row) =>
  [row.task, row.model, row.problem.id, row.sample].map(encodeURIComponent).join("/");

/* Filters */

const tests = {
  task: (row) => !view.task || row.task === view.task,
  model: (row) => !view.model || row.model === view.model,
  status: (row) => !view.statuses || view.statuses.has(row.status),
  differs: (row) => !view.differs || differs(row),
  text: (row) => !view.text || textOf(row).includes(view.text.toLowerCase()),
};

/* Rows that fit all filters but one: what that one's choices would find. */
function fitting(but) {
  const asked = Object.keys(tests).filter((name) => name !== but);
  return rows.filter((row) => asked.every((name) => tests[name](row)));
}

function textOf(row) {
  const parts = [row.problem.problem, row.problem.gold, row.answer, row.thought, row.text];
  row.lowered ??= [row.problem.id, ...parts.map(plain)].join("\n").toLowerCase();
  return row.lowered;
}

function tally(some, key) {
  const counts = new Map();
  for (const row of some) counts.set(row[key], (counts.get(row[key]) ?? 0) + 1);
  return counts;
}

function showFilters() {
  for (const [key, titles] of [["task", contents.tasks], ["model", null]]) {
    const counts = tally(fitting(key), key);
    const all = [...counts.values()].reduce((sum, one) => sum + one, 0);
    const names = titles ? Object.keys(titles) : contents.models;
    const options = names.map((name) => option(name, titles ? titles[name] : name, counts.get(name) ?? 0));
    byId(key).replaceChildren(option("", "All", all), ...options);
    byId(key).value = view[key];
  }
  const counts = tally(fitting("status"), "status");
  for (const box of byId("statuses").querySelectorAll("input")) {
    box.checked = !view.statuses || view.statuses.has(box.value);
    box.parentNode.querySelector(".count").textContent = grouped(counts.get(box.value) ?? 0);
  }
  byId("differs").checked = view.differs;
  byId("differing").textContent = grouped(fitting("differs").filter(differs).length);
  if (byId("search").value !== view.text) byId("search").value = view.text;
}

function option(value, title, count) {
  const made = element("option", "", ...shown(title), ` (${grouped(count)})`);
  made.value = value;
  return made;
}

function statusBoxes() {
  const present = new Set(rows.map((row) => row.status));
  return contents.statuses.filter((status) => present.has(status)).map((status) => {
    const box = element("input");
    box.type = "checkbox";
    box.value = status;
    const name = element("span", "status " + status, words(status));
    return element("label", "check", box, name, element("span", "count"));
  });
}

/* The list */

function apply() {
  found = fitting(null);
  open = found.find((row) => nameOf(row) === view.read) ?? found[0] ?? null;
  view.read = open ? nameOf(open) : "";
  listed = LISTED;
  showFilters();
  byId("count").textContent = `${grouped(found.length)} of ${grouped(rows.length)}`;
  showList();
  showOne();
}

/* The same when a reader has chosen something else. */
function choose(what) {
  Object.assign(view, what);
  apply();
  writeAddress();
}

function showList() {
  listed = Math.max(listed, found.indexOf(open) + 1);
  byId("list").replaceChildren(...found.slice(0, listed).map(entry));
  const rest = found.length - listed;
  byId("more").hidden = rest <= 0;
  byId("more").textContent = `${grouped(rest)} more`;
  markOpen();
}

function entry(row, place) {
  const severalTasks = !view.task && Object.keys(contents.tasks).length > 1;
  const severalModels = !view.model && contents.models.length > 1;
  const button = element("button", "entry",
    element("span", "id", ...shown(row.problem.id)),
    element("span", "sample", String(row.sample)),
    element("span", "status " + row.status, words(row.status)),
    element("span", "tokens", row.tokens === null ? "" : grouped(row.tokens)));
  button.type = "button";
  button.dataset.place = place;
  const told = [...(severalTasks ? [contents.tasks[row.task]] : []), ...(severalModels ? [row.model] : [])];
  if (told.length) button.append(element("span", "of", ...shown(told.join(", "))));
  return element("li", "", button);
}

function markOpen() {
  const list = byId("list");
  list.querySelector("[aria-current]")?.removeAttribute("aria-current");
  const button = open && list.children[found.indexOf(open)]?.firstChild;
  if (!button) return;
  button.setAttribute("aria-current", "true");
  const box = list.parentNode; // scrolled by hand: the page itself shall not move
  const [top, bottom] = [button.offsetTop, button.offsetTop + button.offsetHeight];
  if (top < box.scrollTop) box.scrollTop = top;
  else if (bottom > box.scrollTop + box.clientHeight) box.scrollTop = bottom - box.clientHeight;
}

function go(by) {
  const next = found[found.indexOf(open) + by];
  if (!next) return;
  open = next;
  view.read = nameOf(open);
  if (found.indexOf(open) >= listed) showList();
  markOpen();
  showOne();
  writeAddress();
}

/* What a reader does */

function listen() {
  for (const key of ["task", "model"])
    byId(key).addEventListener("change", () => choose({ [key]: byId(key).value }));
  byId("statuses").addEventListener("change", () => {
    const boxes = [...byId("statuses").querySelectorAll("input")];
    const checked = boxes.filter((box) => box.checked).map((box) => box.value);
    choose({ statuses: checked.length === boxes.length ? null : new Set(checked) });
  });
  byId("differs").addEventListener("change", () => choose({ differs: byId("differs").checked }));
  let waiting;
  byId("search").addEventListener("input", () => {
    clearTimeout(waiting);
    waiting = setTimeout(() => choose({ text: byId("search").value }), 200);
  });
  byId("filters").addEventListener("submit", (event) => event.preventDefault());
  byId("clear").addEventListener("click", () =>
    choose({ task: "", model: "", statuses: null, differs: false, text: "" }));
  byId("more").addEventListener("click", () => { listed += LISTED; showList(); });
  byId("list").addEventListener("click", (event) => {
    const button = event.target.closest("button");
    if (button) go(Number(button.dataset.place) - found.indexOf(open));
  });
  addEventListener("keydown", press);
  addEventListener("hashchange", () => {
    if (location.hash !== written) follow();
  });
}

/* Show what the address says. */
function follow() {
  readAddress();
  const asked = view.read;
  apply();
  if (asked && asked !== view.read)
    byId("one").prepend(element("p", "missing", "The completion of this address is not among these; here is the first that is."));
  if (location.hash.length > 1) byId("completions").scrollIntoView();
}

function press(event) {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.target.closest("input, select, textarea, .wide")) return;
  const does = { j: () => go(1), ArrowRight: () => go(1), k: () => go(-1), ArrowLeft: () => go(-1),
    t: () => { const thought = byId("one").querySelector(".thought"); if (thought) thought.open = !thought.open; },
    "/": () => byId("search").focus() }[event.key];
  if (!does) return;
  event.preventDefault();
  does();
}

async function start() {
  contents = await unpacked("contents");
  rows = [];
  for (const { id, ...of } of contents.blocks) {
    byId("state").textContent = `Reading ${of.task} …`;
    const block = await unpacked(id);
    byId(id).remove(); // its text is held once, not twice
    for (const row of block.rows) rows.push({ ...of, ...row, problem: block.problems[row.index] });
  }
  byId("statuses").append(...statusBoxes());
  byId("reader").hidden = false;
  byId("state").remove();
  listen();
  follow();
}

start().catch((error) => { byId("state").textContent = `The completions cannot be shown: ${error}`; throw error; });
