// The little Markdown that answers are worth: **bold**, `code` and fenced code, as elements. All else stays the text it is.

const INLINE = /`([^`\n]+)`|(?<![\w*])\*\*(?=\S)([^\n]*?\S)\*\*(?![\w*])/g;
const FENCE = /^\s{0,3}```/;

/** Nodes that show `text`. A text never becomes markup: only elements made here, with text in them. */
export function rendered(text) {
  const nodes = [];
  let plain = [];
  let code = null; // lines of the fence that is open
  const flush = () => {
    if (plain.length > 0) nodes.push(...inline(plain.join("\n")));
    plain = [];
  };
  for (const line of text.split("\n")) {
    if (!FENCE.test(line)) {
      (code ?? plain).push(line);
    } else if (code === null) {
      flush();
      code = [];
    } else {
      nodes.push(block(code));
      code = null;
    }
  }
  if (code !== null) nodes.push(block(code)); // an answer that was cut
  flush();
  return nodes;
}

function inline(text) {
  const nodes = [];
  let from = 0;
  for (const found of text.matchAll(INLINE)) {
    if (found.index > from) nodes.push(text.slice(from, found.index));
    nodes.push(found[1] !== undefined ? element("code", found[1]) : element("strong", ...inline(found[2])));
    from = found.index + found[0].length;
  }
  if (from < text.length) nodes.push(text.slice(from));
  return nodes;
}

function block(lines) {
  const made = element("code", lines.join("\n"));
  made.className = "block";
  return made;
}

function element(name, ...children) {
  const made = document.createElement(name);
  made.append(...children);
  return made;
}
