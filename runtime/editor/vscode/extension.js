// Starts `nnc lsp`, and runs what lenses offer in a terminal.
const { commands, window, workspace } = require("vscode");
const { LanguageClient } = require("vscode-languageclient/node");

let client;

async function activate(context) {
  const [command, ...args] = workspace.getConfiguration("nnc").get("command");
  const server = { command, args: [...args, "lsp"] };
  client = new LanguageClient("nnc", "nnc", server, { documentSelector: [{ language: "nn" }] });
  const run = (what, file) => {
    const terminal = window.terminals.find((t) => t.name === "nnc") || window.createTerminal("nnc");
    terminal.show();
    terminal.sendText([command, ...args, what, file].map(quoted).join(" "));
  };
  context.subscriptions.push(commands.registerCommand("nnc.run", run));
  await client.start();
}

function quoted(word) {
  return /^[\w./:=-]+$/.test(word) ? word : `'${word.replaceAll("'", "'\\''")}'`;
}

function deactivate() {
  return client ? client.stop() : undefined;
}

module.exports = { activate, deactivate };
