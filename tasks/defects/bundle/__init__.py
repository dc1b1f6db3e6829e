"""The model bundle of an inspection: one folder with all it needs, and nothing that can run code.

========================  ===================================================================
``manifest.json``         dataset, data digest, commit, size and SHA-256 of every file
``edge.onnx``             what runs on the line: image in, score, heat, type and verdict out
``parity.json``           how far the edge file is from the trained net, in scores and verdicts
``detector.safetensors``  weights of the trained detector, which the central side runs
``detector.json``         its settings and where they come from
``types.npz``             the classifier of types, where two of them were labelled
``types.json``            what it looks at, and how well it names held-out parts
``boxes.safetensors``     weights of the detector of boxes, where enough of them were labelled
``boxes.json``            its types, settings and where they come from
``boxes-types.npz``       what the whole image says of a box's type, where several are known
``thresholds.json``       where the verdicts part, and what was promised on what assumptions
``metrics.json``          figures on held-out parts, with intervals
``images.csv``            image, digest of its pixels, part, and what it was used for
``example.npz``           a few images and their scores: what a loaded copy must reproduce
``MODEL_CARD.md``         the same for people
========================  ===================================================================
"""
