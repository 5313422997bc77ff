// Colours files by a TextMate grammar: `node textmate.mjs GRAMMAR FILE..` prints, for each file, [start, end, scope] of
// each stretch that has a scope.
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";

const require = createRequire(import.meta.url);
const oniguruma = require("vscode-oniguruma");
const textmate = require("vscode-textmate");

const [grammarFile, ...files] = process.argv.slice(2);
await oniguruma.loadWASM(readFileSync(require.resolve("vscode-oniguruma/release/onig.wasm")));
const registry = new textmate.Registry({
  onigLib: Promise.resolve({
    createOnigScanner: (patterns) => new oniguruma.OnigScanner(patterns),
    createOnigString: (s) => new oniguruma.OnigString(s),
  }),
  loadGrammar: async () => textmate.parseRawGrammar(readFileSync(grammarFile, "utf8"), "nn.json"),
});
const grammar = await registry.loadGrammar("source.nn");
const out = files.map((file) => {
  let stack = textmate.INITIAL;
  let offset = 0;
  const found = [];
  for (const line of readFileSync(file, "utf8").split("\n")) {
    const { tokens, ruleStack } = grammar.tokenizeLine(line, stack);
    stack = ruleStack;
    for (const t of tokens) {
      const scope = t.scopes[t.scopes.length - 1];
      if (scope !== "source.nn") found.push([offset + t.startIndex, offset + Math.min(t.endIndex, line.length), scope]);
    }
    offset += line.length + 1;
  }
  return found;
});
process.stdout.write(JSON.stringify(out));
