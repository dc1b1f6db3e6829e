"""Serves ONNX models over HTTP by the Open Inference Protocol, version 2 (KServe, Triton).

``addresses`` says where models lie, ``sources`` finds and reads them, ``onnx_model`` opens one,
``batching`` runs requests together, ``repository`` keeps versions and follows the registry,
``tensors`` and ``messages`` are the protocol, ``service`` and ``app`` answer, ``server`` is the
process, ``client`` the other side.
"""
