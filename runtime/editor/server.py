"""The language server: what an editor asks, in the words of the Language Server Protocol; the only module that needs
pygls.

After an edit the text is read and one entry elaborated (`look`); when the author rests, or saves, all of it is checked
in a thread. Questions in between are answered from what is known.
"""

from __future__ import annotations

import asyncio
import time
import traceback
from collections.abc import Callable, Iterable, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, TypeVar

from lsprotocol import types as lsp
from pygls import uris
from pygls.exceptions import JsonRpcInvalidParams
from pygls.lsp.server import LanguageServer

from ...compiler.elaborate.modules import STD
from ...dsl.diagnostics import Diagnostic
from ...dsl.source import Source, Span
from . import about, changes, completion, shown
from .document import Document
from .positions import Positions
from .symbols import Symbol

T = TypeVar("T")
PAUSE, REST = 0.1, 0.7  # seconds after an edit before a look, and then before a check
_KINDS = {
    "fn": lsp.CompletionItemKind.Function, "builtin": lsp.CompletionItemKind.Function,
    "export": lsp.CompletionItemKind.Function, "source": lsp.CompletionItemKind.Function,
    "layer": lsp.CompletionItemKind.Class, "model": lsp.CompletionItemKind.Class,
    "optimizer": lsp.CompletionItemKind.Class, "label": lsp.CompletionItemKind.Field,
    "keyword": lsp.CompletionItemKind.Keyword, "type": lsp.CompletionItemKind.TypeParameter,
    "size": lsp.CompletionItemKind.TypeParameter, "argument": lsp.CompletionItemKind.Property,
    "setting": lsp.CompletionItemKind.Property, "const": lsp.CompletionItemKind.Constant,
    "hyper": lsp.CompletionItemKind.Constant, "word": lsp.CompletionItemKind.EnumMember,
}  # fmt: skip
_SYMBOLS = {
    "fn": lsp.SymbolKind.Function, "export": lsp.SymbolKind.Function, "layer": lsp.SymbolKind.Class,
    "model": lsp.SymbolKind.Class, "optimizer": lsp.SymbolKind.Class, "const": lsp.SymbolKind.Constant,
    "hyper": lsp.SymbolKind.Constant,
}  # fmt: skip


class Server(LanguageServer):
    """`documents` by the editor's name for them; `texts` of all, by path."""

    def __init__(self) -> None:
        super().__init__("nnc", _version())
        self.documents: dict[str, Document] = {}
        self.texts: dict[Path, str] = {}
        self.pause, self.rest, self.measures = PAUSE, REST, False
        self._waiting: dict[str, asyncio.Task[None]] = {}

    # --- texts

    def open(self, uri: str, text: str, version: int) -> None:
        path, text = _path(uri), text.replace("\r\n", "\n")
        self.texts[path] = text
        if uri not in self.documents:
            self.documents[uri] = Document(path, text, self.texts)
        else:
            self.documents[uri].edit(text)
        self.documents[uri].version = version
        for other in self.documents.values():
            if other.path != path and other.imports(path):
                other.forget()

    def close(self, uri: str) -> None:
        document = self.documents.pop(uri, None)
        if document is not None:
            self.texts.pop(document.path, None)
        if uri in self._waiting:
            self._waiting.pop(uri).cancel()
        self.text_document_publish_diagnostics(lsp.PublishDiagnosticsParams(uri, []))

    def attend(self, uri: str, pause: float) -> None:
        """Look at a file after a pause, and check it after a rest, unless it is changed before."""
        if uri in self._waiting:
            self._waiting[uri].cancel()
        self._waiting[uri] = asyncio.ensure_future(self._attend(uri, pause))

    async def _attend(self, uri: str, pause: float) -> None:
        document = self.documents[uri]
        version = document.version
        try:
            await asyncio.sleep(pause)
            _, spent = _timed(document.look)
            self._tell("look", document, version, spent)
            self._publish(uri, document)
            await asyncio.sleep(self.rest if pause else 0)
            found, spent = await asyncio.to_thread(_timed, document.check)
            self._tell("check", document, version, spent)
            if found is not None and document.checked(*found):
                self._publish(uri, document)
                if self._can_refresh():
                    self.workspace_inlay_hint_refresh(None)
        except Exception as e:  # a fault of ours: the server goes on
            told = "".join(traceback.format_exception(e))
            self.window_log_message(lsp.LogMessageParams(lsp.MessageType.Error, f"nnc: {told}"))

    def _tell(self, what: str, document: Document, version: int, spent: float) -> None:
        """How long something took, where the editor asks for that."""
        if self.measures:
            self.telemetry_event({"what": what, "file": document.path.name, "version": version, "cpu": spent})

    def _can_refresh(self) -> bool:
        workspace = self.client_capabilities.workspace
        return bool(workspace and workspace.inlay_hint and workspace.inlay_hint.refresh_support)

    def _publish(self, uri: str, document: Document) -> None:
        found = [self._diagnostic(document, d) for d in document.diagnostics]
        start = lsp.Range(lsp.Position(0, 0), lsp.Position(0, 0))
        found += [lsp.Diagnostic(start, w, lsp.DiagnosticSeverity.Warning, source="nnc") for w in document.warnings]
        self.text_document_publish_diagnostics(lsp.PublishDiagnosticsParams(uri, found, document.version))

    def _diagnostic(self, document: Document, d: Diagnostic) -> lsp.Diagnostic:
        """One that is about another file stands at the top of this one, and says where it is."""
        at = document.place(d)
        message = "\n".join((d.message, *(f"help: {h}" for h in d.help)))
        if at is None and d.span is not None and d.span.source.name != str(document.path):
            message = f"{d.span}: {message}"
        labels = d.labels[1:] if at is not None else d.labels
        about = [lsp.DiagnosticRelatedInformation(self.location(x.span), x.text or "here") for x in labels]
        severity = lsp.DiagnosticSeverity.Error if d.severity == "error" else lsp.DiagnosticSeverity.Warning
        return lsp.Diagnostic(self.range(document, *(at or (0, 0))), message, severity, d.code, source="nnc",
                              related_information=about)  # fmt: skip

    # --- places

    def positions(self, text: str) -> Positions:
        encoding = self.workspace.position_encoding
        return Positions(text, getattr(encoding, "value", encoding) or "utf-16")

    def offset(self, document: Document, position: lsp.Position) -> int:
        return self.positions(document.text).offset(position.line, position.character)

    def range(self, document: Document, start: int, end: int) -> lsp.Range:
        return _range(self.positions(document.text), start, end)

    def location(self, span: Span) -> lsp.Location:
        name = span.source.name
        path = STD / name.removeprefix("std/") if name.startswith("std/") else Path(name)
        uri = next((u for u, d in self.documents.items() if d.path == path), None) or path.resolve().as_uri()
        return lsp.Location(uri, _range(self.positions(span.source.text), span.start, span.end))

    def edits(self, path: Path, text: str, edits: Iterable[changes.Edit]) -> list[lsp.TextEdit]:
        positions = self.positions(text)
        return [lsp.TextEdit(_range(positions, e.start, e.end), e.text) for e in edits]

    def folders(self, document: Document) -> list[Path]:
        """Where files may be that import this one."""
        opened = [_path(f.uri) for f in self.workspace.folders.values()]
        return [f for f in opened if document.path.is_relative_to(f)] or [document.path.parent]

    def found(self, params: Any) -> tuple[Document, int]:
        """What a question is about."""
        document = self.documents[params.text_document.uri]
        return document, self.offset(document, params.position)


def _timed(step: Callable[[], T]) -> tuple[T, float]:
    """A result, and the milliseconds of this thread that it took."""
    began = time.thread_time()
    result = step()
    return result, round(1000 * (time.thread_time() - began), 1)


def _version() -> str:
    try:
        return version("nnc")
    except PackageNotFoundError:
        return "0"


def _path(uri: str) -> Path:
    path = uris.to_fs_path(uri) if uri.startswith("file:") else None
    return Path(path).resolve() if path else Path(uri.rpartition(":")[2] or "untitled")


def _range(positions: Positions, start: int, end: int) -> lsp.Range:
    return lsp.Range(lsp.Position(*positions.position(start)), lsp.Position(*positions.position(end)))


def _text(markdown: str) -> lsp.MarkupContent:
    return lsp.MarkupContent(lsp.MarkupKind.Markdown, markdown)


def make_server() -> Server:
    """A server that answers everything it says it can."""
    server = Server()
    _texts(server)
    _names(server)
    _writing(server)
    _showing(server)
    return server


def _texts(server: Server) -> None:
    @server.feature(lsp.INITIALIZE)
    def initialize(ls: Server, params: lsp.InitializeParams) -> None:
        options = params.initialization_options
        if isinstance(options, dict):
            ls.pause, ls.rest = float(options.get("pause", PAUSE)), float(options.get("rest", REST))
            ls.measures = options.get("measure") is True

    @server.feature(lsp.TEXT_DOCUMENT_DID_OPEN)
    def opened(ls: Server, params: lsp.DidOpenTextDocumentParams) -> None:
        ls.open(params.text_document.uri, params.text_document.text, params.text_document.version)
        ls.attend(params.text_document.uri, 0)

    @server.feature(lsp.TEXT_DOCUMENT_DID_CHANGE)
    def changed(ls: Server, params: lsp.DidChangeTextDocumentParams) -> None:
        uri = params.text_document.uri
        ls.open(uri, ls.workspace.get_text_document(uri).source, params.text_document.version)
        ls.attend(uri, ls.pause)

    @server.feature(lsp.TEXT_DOCUMENT_DID_SAVE)
    def saved(ls: Server, params: lsp.DidSaveTextDocumentParams) -> None:
        ls.attend(params.text_document.uri, 0)

    @server.feature(lsp.TEXT_DOCUMENT_DID_CLOSE)
    def closed(ls: Server, params: lsp.DidCloseTextDocumentParams) -> None:
        ls.close(params.text_document.uri)


def _names(server: Server) -> None:
    def named(ls: Server, params: Any) -> tuple[Document, Symbol] | None:
        document, offset = ls.found(params)
        found = document.symbol(offset)
        return (document, found[3]) if found is not None else None

    @server.feature(lsp.TEXT_DOCUMENT_HOVER)
    def hover(ls: Server, params: lsp.HoverParams) -> lsp.Hover | None:
        document, offset = ls.found(params)
        found = about.hover(document, offset)
        return lsp.Hover(_text(found[1]), ls.range(document, found[0].start, found[0].end)) if found else None

    @server.feature(lsp.TEXT_DOCUMENT_DEFINITION)
    def definition(ls: Server, params: lsp.DefinitionParams) -> lsp.Location | None:
        document, offset = ls.found(params)
        span = document.definition_of(offset)
        return ls.location(span) if span is not None else None

    @server.feature(lsp.TEXT_DOCUMENT_REFERENCES)
    def references(ls: Server, params: lsp.ReferenceParams) -> list[lsp.Location]:
        found = named(ls, params)
        if found is None:
            return []
        document, symbol = found
        where = changes.references(document, symbol, ls.folders(document))
        said = {p.start for p in symbol.places} if not params.context.include_declaration else set()
        return [
            ls.location(span)
            for path, spans in where.items()
            for s in spans
            if (span := document.now(s) if path == document.path else s) is not None
            and not (s.start in said and path == document.path)
        ]

    @server.feature(lsp.TEXT_DOCUMENT_DOCUMENT_HIGHLIGHT)
    def highlight(ls: Server, params: lsp.DocumentHighlightParams) -> list[lsp.DocumentHighlight]:
        found = named(ls, params)
        spans = (*found[1].places, *found[1].uses) if found is not None else ()
        here = [document.now(s) for document, _ in (found,) for s in spans] if found is not None else []
        return [lsp.DocumentHighlight(ls.location(s).range) for s in here if s is not None]

    @server.feature(lsp.TEXT_DOCUMENT_PREPARE_RENAME)
    def prepare(ls: Server, params: lsp.PrepareRenameParams) -> lsp.Range | None:
        document, offset = ls.found(params)
        found = document.symbol(offset)
        if found is None or found[3].place is None or found[3].place.source.name.startswith("std/"):
            return None
        at = found[1].new(found[2].start, found[2].end)
        return ls.range(document, *at) if at is not None else None

    @server.feature(lsp.TEXT_DOCUMENT_RENAME, lsp.RenameOptions(prepare_provider=True))
    def rename(ls: Server, params: lsp.RenameParams) -> lsp.WorkspaceEdit | None:
        found = named(ls, params)
        if found is None:
            return None
        document, symbol = found
        try:
            edits = changes.rename(document, symbol, params.new_name, ls.folders(document))
        except changes.Refused as e:
            raise JsonRpcInvalidParams(str(e)) from None
        out = {}
        for path, some in edits.items():
            span = Span(Source(str(path), changes.text_of(document, path)), 0, 0)
            out[ls.location(span).uri] = ls.edits(path, span.source.text, some)
        return lsp.WorkspaceEdit(out)

    @server.feature(lsp.TEXT_DOCUMENT_DOCUMENT_SYMBOL)
    def outline(ls: Server, params: lsp.DocumentSymbolParams) -> list[lsp.DocumentSymbol]:
        document = ls.documents[params.text_document.uri]
        out = []
        for symbol, whole, at in document.definitions():
            kind = _SYMBOLS[symbol.kind]
            out.append(lsp.DocumentSymbol(symbol.name, kind, ls.range(document, *whole), ls.range(document, *at)))
        return out


def _writing(server: Server) -> None:
    @server.feature(
        lsp.TEXT_DOCUMENT_COMPLETION, lsp.CompletionOptions(trigger_characters=["."], resolve_provider=True)
    )
    def complete(ls: Server, params: lsp.CompletionParams) -> list[lsp.CompletionItem]:
        document, offset = ls.found(params)
        return [
            lsp.CompletionItem(
                i.name,
                kind=_KINDS.get(i.kind, lsp.CompletionItemKind.Variable),
                detail=i.detail or None,
                insert_text=i.text,
                sort_text=f"{k:04}",
                data={"uri": params.text_document.uri, "offset": offset},
            )
            for k, i in enumerate(completion.complete(document, offset))
        ]

    @server.feature(lsp.COMPLETION_ITEM_RESOLVE)
    def resolve(ls: Server, item: lsp.CompletionItem) -> lsp.CompletionItem:
        data: Any = item.data
        document = ls.documents.get(data["uri"]) if isinstance(data, dict) else None
        symbol = document.lookup(item.label, data["offset"]) if document is not None else None
        if symbol is not None:
            item.documentation = _text(about.describe(symbol))
        return item

    @server.feature(lsp.TEXT_DOCUMENT_SIGNATURE_HELP, lsp.SignatureHelpOptions(trigger_characters=["(", ","]))
    def signature(ls: Server, params: lsp.SignatureHelpParams) -> lsp.SignatureHelp | None:
        found = completion.signature(*ls.found(params))
        if found is None:
            return None
        symbol, head, active = found
        parameters = [lsp.ParameterInformation(p) for p in head.parameters]
        told = lsp.SignatureInformation(head.text, _text(about.documented(symbol)), parameters)
        return lsp.SignatureHelp([told], 0, active)

    @server.feature(lsp.TEXT_DOCUMENT_FORMATTING)
    def layout(ls: Server, params: lsp.DocumentFormattingParams) -> list[lsp.TextEdit]:
        document = ls.documents[params.text_document.uri]
        return ls.edits(document.path, document.text, changes.formatted(document))

    @server.feature(
        lsp.TEXT_DOCUMENT_CODE_ACTION, lsp.CodeActionOptions(code_action_kinds=[lsp.CodeActionKind.QuickFix])
    )
    def actions(ls: Server, params: lsp.CodeActionParams) -> list[lsp.CodeAction]:
        uri = params.text_document.uri
        document = ls.documents[uri]
        start, end = (ls.offset(document, p) for p in (params.range.start, params.range.end))
        out = []
        for d, edit in changes.fixes(document, start, end):
            title = f"write `{edit.text}`" if edit.text else "delete it"
            made = lsp.WorkspaceEdit({uri: ls.edits(document.path, document.text, [edit])})
            told = [ls._diagnostic(document, d)]
            out.append(lsp.CodeAction(title, lsp.CodeActionKind.QuickFix, told, is_preferred=len(d.fixes) == 1,
                                      edit=made))  # fmt: skip
        return out


def _showing(server: Server) -> None:
    legend = lsp.SemanticTokensLegend(list(shown.TYPES), list(shown.MODIFIERS))

    @server.feature(lsp.TEXT_DOCUMENT_SEMANTIC_TOKENS_FULL, legend)
    def tokens(ls: Server, params: lsp.SemanticTokensParams) -> lsp.SemanticTokens:
        document = ls.documents[params.text_document.uri]
        positions = ls.positions(document.text)
        return lsp.SemanticTokens(data=_encoded(shown.words(document), positions))

    @server.feature(lsp.TEXT_DOCUMENT_INLAY_HINT)
    def hints(ls: Server, params: lsp.InlayHintParams) -> list[lsp.InlayHint]:
        document = ls.documents[params.text_document.uri]
        start, end = (ls.offset(document, p) for p in (params.range.start, params.range.end))
        positions = ls.positions(document.text)
        return [
            lsp.InlayHint(lsp.Position(*positions.position(at)), text, lsp.InlayHintKind.Type)
            for at, text in shown.hints(document, start, end)
        ]

    @server.feature(lsp.TEXT_DOCUMENT_CODE_LENS)
    def lenses(ls: Server, params: lsp.CodeLensParams) -> list[lsp.CodeLens]:
        document = ls.documents[params.text_document.uri]
        return [
            lsp.CodeLens(ls.range(document, at, at), lsp.Command(title, "nnc.run", None, [command, str(document.path)]))
            for at, title, command in changes.lenses(document)
        ]


def _encoded(words: Sequence[shown.Word], positions: Positions) -> list[int]:
    """Five numbers a word: lines down, columns on, length, type, modifiers as bits."""
    data: list[int] = []
    line = column = 0
    for w in words:
        row, at = positions.position(w.start)
        length = positions.position(w.end)[1] - at
        bits = sum(1 << shown.MODIFIERS.index(m) for m in w.modifiers)
        data += [row - line, at - (column if row == line else 0), length, shown.TYPES.index(w.type), bits]
        line, column = row, at
    return data
