"""What a sentence encoder is judged by: STS and bitext retrieval, size and speed.

``sets`` reads evaluation sets, ``scoring`` scores an encoder on them with ``similarity`` and
``bitext``, ``size`` and ``speed`` measure its cost, ``table`` shows models beside each other.
"""
