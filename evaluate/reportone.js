/* The completion that is open: what it answers, how it fared, and its text. */

function showOne() {
  const one = byId("one");
  if (!open) return one.replaceChildren(element("p", "quiet", "No completion fits."));
  one.replaceChildren(heading(), facts(),
    section("Problem", open.problem.problem),
    element("div", "pair", section("Gold", open.problem.gold), section("Extracted answer", open.answer && [plain(open.answer)], true)),
    ...(open.detail ? [section("Detail", open.detail)] : []),
    ...completion(), beside());
  one.scrollTop = 0;
}

function heading() {
  const place = found.indexOf(open);
  const title = element("h3", "", ...shown(open.problem.id), ` · sample ${open.sample}`);
  const turn = (by, name, text) => {
    const button = element("button", "turn", text);
    button.type = "button";
    button.setAttribute("aria-label", name);
    button.disabled = !found[place + by];
    button.addEventListener("click", () => {
      go(by);
      byId("one").querySelector(`[aria-label="${name}"]`).focus(); // this button is no more
    });
    return button;
  };
  const where = element("span", "quiet", `${grouped(place + 1)} of ${grouped(found.length)}`);
  return element("header", "top", title, element("div", "turns", turn(-1, "Previous completion", "←"), where, turn(1, "Next completion", "→")));
}

function facts() {
  const lenient = differs(open) ? [" lenient: ", element("span", "status " + open.lenient, words(open.lenient))] : [];
  const tokens = open.tokens === null ? "tokens not known" : `${grouped(open.tokens)} tokens`;
  const ends = { eos: "ended by itself", length: "ended at the limit of tokens", unknown: "how it ended is not known" };
  return element("p", "facts",
    element("span", "", element("span", "status " + open.status, words(open.status)), ...lenient),
    element("span", "", tokens), element("span", "", ends[open.ending] ?? open.ending),
    element("span", "", ...shown(contents.tasks[open.task])), element("span", "", ...shown(open.model)));
}

function section(title, passage, marked = false) {
  const body = passage && passage.length ? pieces(marked ? [passage] : passage) : [element("span", "quiet", "none")];
  return element("section", "", element("h4", "", title), element("div", "said", ...body));
}

function completion() {
  const parts = [];
  if (open.thought) {
    const unfinished = open.text === null ? ", never closed" : "";
    const folded = element("details", "thought",
      element("summary", "", `Thought, ${grouped(sizeOf(open.thought))} characters${unfinished}`),
      element("div", "said", ...pieces(open.thought)));
    folded.open = !open.text?.length;
    parts.push(folded);
  }
  if (open.text) parts.push(section(open.thought ? "After the thought" : "Completion", open.text));
  return parts;
}

const sizeOf = (passage) =>
  passage.reduce((sum, one) => sum + (typeof one === "number" ? one : [...String(one)].length), 0);

function pieces(passage) {
  return passage.map((one) => {
    if (typeof one === "number") return element("span", "left-out", `${grouped(one)} characters are left out here`);
    return Array.isArray(one) ? element("mark", "", ...shown(one[0])) : shown(one);
  });
}

/* The same problem's completions that are on the page, of this model and of others. */
function beside() {
  const same = rows.filter((row) => row.task === open.task && row.problem.id === open.problem.id);
  const items = contents.models.map((model) => {
    const own = same.filter((row) => row.model === model);
    const links = own.map((row) => {
      const link = element("a", "status " + row.status, words(row.status));
      const told = { task: row.task, read: nameOf(row) };
      link.href = "#" + new URLSearchParams(told);
      if (row === open) link.setAttribute("aria-current", "true");
      return link;
    });
    return own.length ? [element("dt", "", ...shown(model)), element("dd", "", ...links)] : [];
  });
  return element("section", "beside", element("h4", "", "Completions of this problem on the page"), element("dl", "", items));
}

/* A passage as text: a cut is the end of a line. */
const plain = (passage) =>
  (passage ?? []).map((one) => (typeof one === "number" ? "\n" : String(one))).join("");

const words = (status) => status.replaceAll("_", " ");

const differs = (row) => row.status !== row.lenient;
