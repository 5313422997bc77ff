// What a grammar cannot say of `.nn` text, as dsl/tokens.py says it: which newlines end a statement, and which words are
// keywords where they stand. The parser asks only for what can stand at a place.
#include "tree_sitter/parser.h"

#include <string.h>

#include "words.h"

enum { NEWLINE, REDUCTION, FIRST_WORD };
enum { WORD_COUNT = sizeof(WORDS) / sizeof(*WORDS), NEVER = FIRST_WORD + WORD_COUNT, LONGEST = 15 };

static const char *const REDUCTIONS[] = {"sum", "mean", "prod", "max", "min"};
static const char *const BEFORE_NAME[] = {"weight", "bias", "state", "share", "scan", "metric", "minimize", "gradcheck"};

void *tree_sitter_nn_external_scanner_create(void) { return NULL; }
void tree_sitter_nn_external_scanner_destroy(void *payload) { (void)payload; }
unsigned tree_sitter_nn_external_scanner_serialize(void *payload, char *buffer) {
    (void)payload, (void)buffer;
    return 0;
}
void tree_sitter_nn_external_scanner_deserialize(void *payload, const char *buffer, unsigned length) {
    (void)payload, (void)buffer, (void)length;
}

static bool is_letter(int32_t c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_' || c > 127; }
static bool is_digit(int32_t c) { return c >= '0' && c <= '9'; }
static bool is_space(int32_t c) { return c == ' ' || c == '\t' || c == '\r' || c == '\f'; }

static bool is_in(const char *word, const char *const *words, unsigned count) {
    for (unsigned k = 0; k < count; k++)
        if (!strcmp(word, words[k])) return true;
    return false;
}

static void skip_spaces(TSLexer *lexer) {
    while (is_space(lexer->lookahead)) lexer->advance(lexer, false);
}

static void skip_line(TSLexer *lexer) {
    while (lexer->lookahead != '\n' && !lexer->eof(lexer)) lexer->advance(lexer, false);
}

// Read a word of at most LONGEST letters; of what is longer, only that it is no word of ours.
static void read_word(TSLexer *lexer, char *word) {
    unsigned n = 0;
    while (is_letter(lexer->lookahead) || is_digit(lexer->lookahead)) {
        if (n < LONGEST) word[n++] = lexer->lookahead < 128 ? (char)lexer->lookahead : '?';
        lexer->advance(lexer, false);
    }
    word[n] = 0;
}

// Behind a line: whether another statement begins, and not a pipe or the end of the block.
static bool ends_statement(TSLexer *lexer) {
    bool newline = false;
    for (;;) {
        if (lexer->lookahead == '\n') newline = true;
        if (lexer->lookahead == '#') skip_line(lexer);
        else if (is_space(lexer->lookahead) || lexer->lookahead == '\n') lexer->advance(lexer, false);
        else break;
    }
    if (!newline || lexer->eof(lexer) || lexer->lookahead == '}') return false;
    if (lexer->lookahead != '|') return true;
    lexer->advance(lexer, false);
    return lexer->lookahead != '>';
}

// `sum[i](..)`, as opposed to `sum(..)` and to an array called `sum`.
static bool is_reduction(TSLexer *lexer) {
    unsigned depth = 0;
    skip_spaces(lexer);
    if (lexer->lookahead != '[') return false;
    do {
        if (lexer->eof(lexer)) return false;
        if (lexer->lookahead == '[') depth++;
        if (lexer->lookahead == ']') depth--;
        if (lexer->lookahead == '#') skip_line(lexer);
        else lexer->advance(lexer, false);
    } while (depth);
    skip_spaces(lexer);
    return lexer->lookahead == '(';
}

// Whether a word is a keyword at the beginning of a statement: what follows it decides.
static bool is_keyword(TSLexer *lexer, const char *word) {
    static const char *const ALWAYS[] = {"import", "from", "const", "hyper", "fn", "layer", "model", "optimizer", "train",
                                         "export", "test", "training", "until", "within", "over", "with"};
    if (is_in(word, ALWAYS, sizeof(ALWAYS) / sizeof(*ALWAYS))) return true;
    skip_spaces(lexer);
    int32_t next = lexer->lookahead;
    char after[LONGEST + 1] = "";
    if (is_letter(next)) read_word(lexer, after);
    bool joins = !strcmp(after, "and") || !strcmp(after, "or"), named = *after && !joins;
    if (!strcmp(word, "update")) return next == '{';
    if (!strcmp(word, "reject")) return next == '"';
    if (!strcmp(word, "stop")) return !strcmp(after, "when");
    if (!strcmp(word, "when") || is_in(word, BEFORE_NAME, sizeof(BEFORE_NAME) / sizeof(*BEFORE_NAME))) return named;
    bool operand = (named && strcmp(after, "in") && strcmp(after, "then") && strcmp(after, "else")) || is_digit(next) ||
                   next == '"' || next == '(' || next == '-' || next == '[';
    return operand && !(next == '[' && !strcmp(word, "repeat"));
}

bool tree_sitter_nn_external_scanner_scan(void *payload, TSLexer *lexer, const bool *valid) {
    (void)payload;
    if (valid[NEVER]) return false;  // the parser is recovering from an error
    while (is_space(lexer->lookahead)) lexer->advance(lexer, true);
    if (valid[NEWLINE]) {
        if (lexer->lookahead == '\n' || lexer->lookahead == '#') {
            lexer->mark_end(lexer);
            lexer->result_symbol = NEWLINE;
            return ends_statement(lexer);
        }
    }
    while (is_space(lexer->lookahead) || lexer->lookahead == '\n') lexer->advance(lexer, true);
    if (!is_letter(lexer->lookahead)) return false;
    char word[LONGEST + 1];
    read_word(lexer, word);
    lexer->mark_end(lexer);
    if (valid[REDUCTION] && is_in(word, REDUCTIONS, sizeof(REDUCTIONS) / sizeof(*REDUCTIONS))) {
        lexer->result_symbol = REDUCTION;
        return is_reduction(lexer);
    }
    for (unsigned k = 0; k < WORD_COUNT; k++) {
        if (!valid[FIRST_WORD + k] || strcmp(word, WORDS[k])) continue;
        lexer->result_symbol = FIRST_WORD + k;
        bool second = !strcmp(word, "when") && !valid[NEWLINE] && !valid[REDUCTION];  // of `stop when`
        return second || is_keyword(lexer, word);
    }
    return false;
}
