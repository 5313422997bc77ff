"""Random programs, and the judge that says whether they are compiled right.

`python -m tests.fuzz --programs 20000` by hand; `test_fuzz` runs a few in every run of the tests.

| file | one thought |
| --- | --- |
| `program` | a program as text with the sizes it is called at; random arguments for it |
| `generator` | grows a program statement by statement from a table of productions |
| `productions`, `blocks` | the table: each a small function that adds a statement; loops, derivatives, layers |
| `machine` | compiled code run on buffers of one's own, also between pages that may not be touched |
| `plain` | what a program means, in Python and NumPy alone |
| `judge` | compares all ways to compute one program, and how long it takes to compile |
| `shrinker` | a failing text made small |
| `runner` | processes that judge, watched from outside |
| `mutants` | shipped and golden `.nn` files with a few mistakes in them |
"""
