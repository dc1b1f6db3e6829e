"""Temporal attention over mailboxes: the transaction at hand asks, earlier messages answer.

Mailboxes follow APAN (Wang et al., SIGMOD 2021); attention over messages with encoded age follows
TGAT (Xu et al., ICLR 2020). Age and amount relation enter through smooth bumps and steps of
several widths, so that the net itself finds which ages and which relations matter.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

AGE, RATIO, MATCH, VECTOR = 0, 1, 2, 3
"""Positions in a mail token: age in days, log(amount now / amount then), 1 if the message's
counterpart takes part in the transaction at hand, then the message vector."""

AGE_SCALES = (0.04, 0.2, 0.7, 2.0, 5.0, 14.0, 40.0)
RATIO_SCALES = (0.01, 0.02, 0.04, 0.08, 0.16, 0.4, 1.0, 2.5)


@dataclass(frozen=True, slots=True)
class MailAttentionConfig:
    """Shape of the attention.

    Attributes:
        groups: Mailbox sections a transaction reads (G).
        slots: Messages per section (K), most recent first.
        vector: Entries of a message vector (W).
        query: Width of the query (Q).
        hidden: Width of a message (H); a multiple of ``heads``.
        heads: Attention heads.
    """

    groups: int
    slots: int
    vector: int
    query: int = 32
    hidden: int = 48
    heads: int = 2

    def __post_init__(self) -> None:
        """Validate, naming the fix."""
        if min(self.groups, self.slots, self.query, self.hidden, self.heads) < 1:
            raise ValueError("mail attention: every size must be at least 1")
        if self.vector < 0 or self.hidden % self.heads:
            raise ValueError("mail attention: hidden must be a multiple of heads, vector >= 0")

    @property
    def token(self) -> int:
        """Entries of a mail token (d)."""
        return VECTOR + self.vector

    @property
    def pooled(self) -> int:
        """Entries of the output."""
        return 2 * self.groups * self.hidden


class MailAttention(nn.Module):
    """Pools each mailbox section by attention and by maximum.

    Attributes:
        config: Its shape.
    """

    def __init__(self, config: MailAttentionConfig) -> None:
        super().__init__()
        self.config = config
        encoded = 2 * len(RATIO_SCALES) + len(AGE_SCALES) + 2 + config.vector
        self.register_buffer("age_scales", torch.tensor(AGE_SCALES))
        self.register_buffer("ratio_scales", torch.tensor(RATIO_SCALES))
        self.register_buffer("vector_mean", torch.zeros(config.vector))
        self.register_buffer("vector_scale", torch.ones(config.vector))
        self.message = nn.Linear(encoded, config.hidden, bias=False)
        self.asking = nn.Linear(config.query, config.hidden)
        self.section = nn.Parameter(0.1 * torch.randn(config.groups, config.hidden))
        self.mixed = nn.Linear(config.hidden, config.hidden)
        self.weight = nn.Linear(config.hidden, config.heads)
        self.nobody = nn.Parameter(torch.zeros(config.groups, config.heads))

    def encode(self, tokens: Tensor) -> Tensor:
        """Return encoded tokens.

        Args:
            tokens: float32 [m, d] raw tokens.
        """
        age, ratio = tokens[:, AGE], tokens[:, RATIO]
        # Beyond the bounds tanh is 1; unbounded, the bumps would be subnormal numbers, and the
        # arithmetic of those is a hundred times slower.
        relation = (ratio[:, None] / self.get_buffer("ratio_scales")).clamp(-9.0, 9.0)
        since = (age[:, None] / self.get_buffer("age_scales")).clamp_max(80.0)
        vector = tokens[:, VECTOR:] - self.get_buffer("vector_mean")
        parts = [
            torch.tanh(relation),
            torch.exp(-relation * relation),
            torch.exp(-since),
            (0.3 * torch.log1p(age))[:, None],
            tokens[:, MATCH : MATCH + 1],
            (vector * self.get_buffer("vector_scale")).clamp(-5.0, 5.0),
        ]
        return torch.cat(parts, dim=1)

    def forward(self, query: Tensor, mail: Tensor, mask: Tensor) -> Tensor:
        """Return the pooled mail.

        Dense layers take a matrix of all tokens, and small axes stay off the end: that is what
        runtimes are fast on.

        Args:
            query: float32 [n, Q].
            mail: float32 [n, G * K, d] raw tokens, sections one after the other.
            mask: bool [n, G * K], true where a message lies.

        Returns:
            float32 [n, 2 G H].
        """
        c = self.config
        places = (-1, c.groups, c.slots)
        present = mask.to(mail.dtype)
        asked = self.asking(query)[:, None, :] + self.section
        hidden = self.message(self.encode(mail.reshape(-1, c.token))).reshape(*places, c.hidden)
        hidden = nn.functional.gelu(hidden + asked[:, :, None, :]).reshape(-1, c.hidden)
        hidden = nn.functional.gelu(self.mixed(hidden))
        scores = self.weight(hidden).reshape(*places, c.heads).transpose(2, 3)
        scores = scores + (1e4 * (present - 1.0)).reshape(-1, c.groups, 1, c.slots)
        # An empty section must be able to say nothing: one weightless "nobody" joins each softmax.
        nobody = self.nobody[None, :, :, None] + torch.zeros_like(scores[..., :1])
        share = torch.softmax(torch.cat([scores, nobody], dim=3), dim=3)[..., : c.slots]
        heads = hidden.reshape(*places, c.heads, c.hidden // c.heads)
        mean = (share.transpose(2, 3)[..., None] * heads).sum(dim=2).flatten(1)
        hidden = hidden.reshape(*places, c.hidden) * present.reshape(*places, 1)
        return torch.cat([mean, hidden.amax(dim=2).flatten(1)], dim=1)
