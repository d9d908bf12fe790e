"use strict";

/* The value of a block of data: JSON, compressed by gzip, in base64. */
async function unpacked(id) {
  const text = atob(document.getElementById(id).textContent);
  const bytes = new Uint8Array(text.length);
  for (let at = 0; at < text.length; at++) bytes[at] = text.charCodeAt(at);
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return JSON.parse(await new Response(stream).text());
}

/* What would be unseen, or would turn the text around it: controls, marks of direction, lone halves
   of a pair. A run of one of them is one match. */
const UNSEEN =
  /([\u0000-\u0008\u000B-\u001F\u007F-\u009F\u061C\u200B\u200E\u200F\u2028-\u202E\u2060-\u206F\uFEFF]|[\uD800-\uDBFF](?![\uDC00-\uDFFF])|(?<![\uD800-\uDBFF])[\uDC00-\uDFFF])\1*/g;

/* A text as nodes, in which unseen characters are told by their code; nothing of it is markup. */
function shown(text) {
  const nodes = [];
  let end = 0;
  for (const found of text.matchAll(UNSEEN)) {
    nodes.push(text.slice(end, found.index), element("span", "unseen", codeOf(found[0])));
    end = found.index + found[0].length;
  }
  return [...nodes, text.slice(end)];
}

function codeOf(run) {
  const code = "U+" + run.charCodeAt(0).toString(16).toUpperCase().padStart(4, "0");
  return run.length === 1 ? code : `${code} × ${run.length}`;
}

/* An element of a class with texts and elements inside. */
function element(name, kind, ...inside) {
  const made = document.createElement(name);
  if (kind) made.className = kind;
  for (const one of inside.flat(Infinity)) made.append(one); // too many for one call's arguments
  return made;
}

const grouped = (number) => number.toLocaleString("en-US");
