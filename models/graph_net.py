"""The graph net: features, mailboxes and entity embeddings of a transaction to its log-odds."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from models.mail_attention import MailAttention, MailAttentionConfig

INPUTS = ("features", "mail", "mask", "embeddings")
OUTPUT = "signals"


@dataclass(frozen=True, slots=True)
class GraphNetConfig:
    """Shape of the net.

    Attributes:
        features: Number of features (F).
        mail: Shape of the mail attention.
        columns: Entity columns (C).
        embedding: Entries of an entity embedding (E); 0 for none.
        hidden: Width of the dense layers.
        representation: Width of the last hidden layer.
        dropout: Share of units dropped in training.
        embedding_dropout: The same for entries of the embeddings. They are the coarsest input
            and the stalest in service: the net must not lean on them.
    """

    features: int
    mail: MailAttentionConfig
    columns: int
    embedding: int = 0
    hidden: int = 64
    representation: int = 16
    dropout: float = 0.1
    embedding_dropout: float = 0.5

    def __post_init__(self) -> None:
        """Validate, naming the fix."""
        if min(self.features, self.columns, self.hidden, self.representation) < 1:
            raise ValueError("graph net: every size must be at least 1 (embedding may be 0)")
        rates = (self.dropout, self.embedding_dropout)
        if self.embedding < 0 or not all(0 <= rate < 1 for rate in rates):
            raise ValueError("graph net: embedding must be >= 0 and dropout in [0, 1)")


class GraphNet(nn.Module):
    """Scores a transaction from everything an online store can hand over.

    Attributes:
        config: Its shape.
    """

    def __init__(self, config: GraphNetConfig) -> None:
        super().__init__()
        self.config = config
        width = config.features + config.columns * config.embedding
        self.register_buffer("mean", torch.zeros(config.features))
        self.register_buffer("scale", torch.ones(config.features))
        self.register_buffer("prior", torch.zeros(()))
        self.register_buffer("knee", torch.zeros(()))
        drop = nn.Dropout(config.dropout)
        self.query = nn.Sequential(
            nn.Linear(width, config.hidden),
            nn.GELU(),
            drop,
            nn.Linear(config.hidden, config.mail.query),
            nn.GELU(),
        )
        self.thin = nn.Dropout(config.embedding_dropout)
        self.mail = MailAttention(config.mail)
        self.joint = nn.Sequential(
            nn.Dropout(config.dropout),
            nn.Linear(config.mail.query + config.mail.pooled, config.hidden),
            nn.GELU(),
            nn.Dropout(config.dropout),
            nn.Linear(config.hidden, config.representation),
        )
        self.odds = nn.Linear(config.representation, 1)

    def set_scales(
        self, features: tuple[Tensor, Tensor], vectors: tuple[Tensor, Tensor], prior: float
    ) -> None:
        """Fix the standardisation, measured on training rows.

        Args:
            features: Mean and standard deviation [F] of asinh(features).
            vectors: Mean and standard deviation [W] of the message vectors.
            prior: Added to the log-odds: undoes the sampling of legitimate rows.
        """
        with torch.no_grad():
            self.get_buffer("mean").copy_(features[0])
            self.get_buffer("scale").copy_(1.0 / features[1].clamp_min(1e-6))
            self.mail.get_buffer("vector_mean").copy_(vectors[0])
            self.mail.get_buffer("vector_scale").copy_(1.0 / vectors[1].clamp_min(1e-6))
            self.get_buffer("prior").fill_(prior)

    def set_knee(self, knee: float) -> None:
        """Set the log-odds from which on the second signal rises."""
        with torch.no_grad():
            self.get_buffer("knee").fill_(knee)

    def represent(self, features: Tensor, mail: Tensor, mask: Tensor, embeddings: Tensor) -> Tensor:
        """Return the last hidden layer, float32 [n, representation]; arguments as ``forward``."""
        x = (asinh(features) - self.get_buffer("mean")) * self.get_buffer("scale")
        x = torch.cat([x.clamp(-5.0, 5.0), self.thin(embeddings.flatten(1))], dim=1)
        query = self.query(x)
        hidden: Tensor = self.joint(torch.cat([query, self.mail(query, mail, mask)], dim=1))
        return hidden

    def forward(self, features: Tensor, mail: Tensor, mask: Tensor, embeddings: Tensor) -> Tensor:
        """Return the two signals that a tree head reads.

        Args:
            features: float32 [n, F].
            mail: float32 [n, T, d] raw mail tokens.
            mask: bool [n, T], true where a message lies.
            embeddings: float32 [n, C, E].

        Returns:
            float32 [n, 2]: log-odds, and how far they rise above the knee (0 below it).
            Histogram trees bin by quantiles: without the second signal, all of the rare top
            would share one bin.
        """
        hidden = self.represent(features, mail, mask, embeddings)
        logit = self.odds(nn.functional.gelu(hidden)) + self.get_buffer("prior")
        return torch.cat([logit, torch.relu(logit - self.get_buffer("knee"))], dim=1)

    def example(self, rows: int = 3) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return inputs of the right shapes, deterministic."""
        c = self.config
        tokens = c.mail.groups * c.mail.slots
        ramp = torch.linspace(0.0, 1.0, rows * tokens * c.mail.token)
        return (
            torch.linspace(-1.0, 1.0, rows * c.features).reshape(rows, -1),
            ramp.reshape(rows, tokens, c.mail.token),
            torch.arange(rows * tokens).reshape(rows, tokens) % 3 > 0,
            torch.zeros(rows, c.columns, c.embedding),
        )


def asinh(x: Tensor) -> Tensor:
    """Return asinh, which tames amounts and durations over many decades and keeps signs.

    Written out: runtimes compute roots and logarithms many values at a time, asinh one by one.
    """
    return torch.sign(x) * torch.log(x.abs() + torch.sqrt(x * x + 1.0))


def export_onnx(net: GraphNet) -> bytes:
    """Return the net as an ONNX file with a free number of rows.

    Inputs ``features``, ``mail``, ``mask``, ``embeddings`` (left out when the net reads
    none); output ``signals`` [n, 2].
    """
    net = net.eval()
    args = net.example()
    rows = torch.export.Dim("rows", min=1)
    with warnings.catch_warnings():
        # The exporter remarks that all inputs share the axis "rows": that is what is meant.
        warnings.filterwarnings("ignore", message=".*axis name: rows", category=UserWarning)
        program = torch.onnx.export(
            net,
            args,
            input_names=list(INPUTS),
            output_names=[OUTPUT],
            dynamo=True,
            dynamic_shapes=[{0: rows}] * len(args),
            verbose=False,
        )
    if program is None:
        raise RuntimeError("the ONNX exporter returned nothing; check the installed onnxscript")
    return bytes(program.model_proto.SerializeToString())
