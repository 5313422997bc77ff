// Reads a grammar for tree-sitter as its generator does: `node treesitter.mjs grammar.js` prints it as JSON.
import { createRequire } from "node:module";
import { resolve } from "node:path";

const rule = (x) =>
  typeof x === "string" ? { type: "STRING", value: x } : x instanceof RegExp ? { type: "PATTERN", value: x.source } : x;
const many = (type) => (...members) => ({ type, members: members.map(rule) });
Object.assign(globalThis, {
  seq: many("SEQ"),
  choice: many("CHOICE"),
  repeat: (content) => ({ type: "REPEAT", content: rule(content) }),
  optional: (content) => ({ type: "CHOICE", members: [rule(content), { type: "BLANK" }] }),
  alias: (content, value) => ({ type: "ALIAS", content: rule(content), value: rule(value) }),
  grammar: (g) => {
    const $ = new Proxy({}, { get: (_, name) => ({ type: "SYMBOL", name }) });
    const rules = Object.fromEntries(Object.entries(g.rules).map(([name, f]) => [name, rule(f($))]));
    return { name: g.name, word: g.word($).name, externals: g.externals($).map((x) => x.name), rules };
  },
});
const require = createRequire(import.meta.url);
process.stdout.write(JSON.stringify(require(resolve(process.argv[2]))));
