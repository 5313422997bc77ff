"""What users import below `nnc` beside its own names: `nnc.sklearn` is `runtime/public/sklearn.py`.

Here and not in the root of the tree, which is the working directory of who works on nnc: a `sklearn.py` there would be
what `import sklearn` finds.
"""
