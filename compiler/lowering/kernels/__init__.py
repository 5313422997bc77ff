"""Loop nests for each kind of kernel. In: the small graph one kernel computes. Out: statements of the loop IR.

    body          the kernel under construction: open loops, bound names, the value of any node at any point
    nest          which axes are one loop; loops over boxes and tiles
    pointwise     results of one shape, each an expression at a point
    fold          reductions of one box in stages, with what is elementwise around them; `argument` makes argmax of them
    blocks        long sums in blocks
    product       which contractions are matrix products: convolutions, too, and their gradients
    matmul, tile  matrix products and windows in register tiles, with what is elementwise in the result; which tile
    contraction   every other contraction: depthwise convolutions, zero padding, several operands
    scatter       rows, or elements of a last axis, added where data says
    ordering      recurrences along an axis; the order that sorts one
    sharing       which loops threads share: what is worth a fork, decided when sizes are known

Scheduling is decided here, where a loop is opened, not by rewriting loops afterwards: lanes, tiles, unrolling and
threads follow from the kind of kernel and its sizes, and each kernel can be read against the loops it prints.
"""
