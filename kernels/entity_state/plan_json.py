"""The layout as plain data for other languages: the JVM module computes no offset itself."""

from __future__ import annotations

import base64
from typing import Any

from kernels.entity_state.fields import feature_names
from kernels.entity_state.layout import layout_of, spec_digest
from kernels.entity_state.parts import parts_of
from kernels.entity_state.spec import StateSpec


def plan_json(spec: StateSpec) -> dict[str, Any]:
    """Return the numbers of `layout.Plan`, the parts of a block and an empty block.

    Offsets count 8-byte words within a section, except those of ``parts``, which are bytes of the
    block. ``digest`` is text because JSON numbers end at 2^53; ``empty`` is base64.
    """
    layout = layout_of(spec)
    plan = layout.plan
    return {
        "roles": spec.roles,
        "features": len(feature_names(spec)),
        "digest": str(spec_digest(spec)),
        "recent": plan.recent,
        "recent_size": plan.recent_size,
        "rings": plan.rings.tolist(),
        "windows": plan.windows.tolist(),
        "label_tile": plan.label_tile,
        "label_size": plan.label_size,
        "label": plan.label,
        "delay": plan.delay,
        "mail_size": plan.mail_size,
        "mail_words": plan.mail_words,
        "mail_width": spec.mail_width,
        "parts": [part._asdict() for part in parts_of(spec)],
        "empty": base64.b64encode(layout.empty.tobytes()).decode(),
    }
