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
        # Beyond the bounds tanh is 1; unbounded, the bumps would be subnormal numbers, and the
        # arithmetic of those is a hundred times slower.
        relation = self._spread(tokens, RATIO, self.get_buffer("ratio_scales")).clamp(-9.0, 9.0)
        since = self._spread(tokens, AGE, self.get_buffer("age_scales")).clamp_max(80.0)
        parts = [
            torch.tanh(relation),
            torch.exp(-relation * relation),
            torch.exp(-since),
            (0.3 * torch.log1p(tokens[:, AGE]))[:, None],
            tokens[:, MATCH : MATCH + 1],
            self._standardised(tokens).clamp(-5.0, 5.0),
        ]
        return torch.cat(parts, dim=1)

    def _spread(self, tokens: Tensor, position: int, scales: Tensor) -> Tensor:
        """Return one entry of every token over each of the scales, [m, scales]."""
        places = nn.functional.pad(
            (1.0 / scales)[None, :], (0, 0, position, self.config.token - position - 1)
        )
        return tokens @ places

    def _standardised(self, tokens: Tensor) -> Tensor:
        """Return the message vectors less their mean, over their standard deviation, [m, W]."""
        scale = self.get_buffer("vector_scale")
        places = nn.functional.pad(torch.diag(scale), (0, 0, VECTOR, 0))
        return torch.addmm(-self.get_buffer("vector_mean") * scale, tokens, places)

    def forward(self, query: Tensor, mail: Tensor, mask: Tensor) -> Tensor:
        """Return the pooled mail.

        Everything is a matrix of all tokens, and what is spread over its columns is spread by
        multiplication: runtimes are fast at that, and slow where a short axis is repeated.

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
        absent = (1e4 * (present - 1.0)).reshape(-1, 1)
        scores = torch.addmm(self.weight(hidden), absent, torch.ones_like(self.nobody[:1]))
        scores = scores.reshape(-1, c.slots, c.heads).transpose(1, 2)
        # An empty section must be able to say nothing: one weightless "nobody" joins each softmax.
        nobody = self.nobody.repeat(mask.shape[0], 1)[:, :, None]
        share = torch.softmax(torch.cat([scores, nobody], dim=2), dim=2)[:, :, : c.slots]
        hidden = hidden.reshape(-1, c.slots, c.hidden)
        # Each head weighs all columns, and its own are taken: one product of small matrices.
        mean = torch.cat(
            [head[:, i] for i, head in enumerate((share @ hidden).chunk(c.heads, dim=2))], dim=1
        )
        most = (hidden * present.reshape(-1, c.slots, 1)).amax(dim=1)
        pooled = (-1, c.groups * c.hidden)
        return torch.cat([mean.reshape(pooled), most.reshape(pooled)], dim=1)
