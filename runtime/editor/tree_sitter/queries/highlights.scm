(comment) @comment
(string) @string
(text) @string
(integer) @number
(floating) @number
(boolean) @boolean

["import" "from" "const" "hyper" "fn" "layer" "model" "optimizer" "train" "export" "test" "weight" "bias" "state" "share"
 "metric" "minimize" "gradcheck" "reject"] @keyword
["if" "then" "else" "when" "training" "repeat" "scan" "until" "stop" "update" "return" "case" "expect" "within" "over"
 "with"] @keyword
["and" "or" "not" "in"] @keyword.operator
["|>" "=" ":=" "~" "->" "=>" "==" "!=" "<" "<=" ">" ">=" ".." "+" "-" "*" "/" "//" "%" "@" "^"] @operator
["(" ")" "[" "]" "{" "}"] @punctuation.bracket
["," ":" "."] @punctuation.delimiter

(plain_type (identifier) @type)
(tensor_type . (identifier) @type)
(parameter . (identifier) @variable.parameter)
(named . (identifier) @variable.parameter)
(attribute (identifier) @property)
(labelled_pipe (identifier) @label)
(call . (name (identifier) @function.call))
(comprehension . (identifier) @function.builtin)

(function . "fn" . (identifier) @function)
(export . "export" . (identifier) @function)
(layer . "layer" . (identifier) @type)
(model . "model" . (identifier) @type)
(optimizer . "optimizer" . (identifier) @type)
(train . "train" . (identifier) @type)
