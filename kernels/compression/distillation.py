"""A small net learns from a large one: answers, maps, attention, and how items lie to each other.

The loss is one that the training runtime takes, so that resume, precision and tracking are those of
any other run. Teachers that are no nets, such as an ensemble of trees, teach by their answers.

    >>> import torch
    >>> from torch import nn
    >>> from torch.nn import functional
    >>> teacher, student = nn.Linear(8, 3), nn.Linear(8, 3)
    >>> def on_labels(answers, batch):
    ...     return functional.cross_entropy(answers, batch[1], reduction="sum"), len(answers)
    >>> learner = Learner(student, teacher, torch.zeros(2, 8))
    >>> loss = learner.loss(on_labels)  # for Runner(learner, batches, loss, ...); then take student
    >>> loss(learner, (torch.zeros(2, 8), torch.tensor([0, 1])))[1]
    2
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from kernels.runtime.runner import Loss

Teacher = Callable[[Tensor], Tensor]
"""Inputs to logits [n, classes], or to one number per item [n] or [n, 1]."""
OnLabels = Callable[[Tensor, Any], tuple[Tensor, int]]
"""Answers and batch -> summed loss on labels, number of items."""


class DistillationError(ValueError):
    """Teacher and student that do not go together; says where."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DistillationConfig:
    """What the student learns, and how much of each.

    Attributes:
        labels: Weight of the loss on labels.
        answers: Weight of the teacher's softened answers (Hinton et al. 2015,
            https://arxiv.org/abs/1503.02531).
        temperature: Answers are divided by it before they are made probabilities.
        features: Weight of maps, brought to the teacher's width by a trained 1 x 1 layer (Romero et
            al. 2015, https://arxiv.org/abs/1412.6550).
        attention: Weight of where the maps are large (Zagoruyko and Komodakis 2017,
            https://arxiv.org/abs/1612.03928).
        relations: Weight of distances and angles between the items of a batch (Park et al. 2019,
            https://arxiv.org/abs/1904.05068).
        layers: Student's layer -> teacher's layer, whose outputs are compared.
    """

    labels: float = 0.5
    answers: float = 0.5
    temperature: float = 4.0
    features: float = 0.0
    attention: float = 0.0
    relations: float = 0.0
    layers: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Validate, naming the fix."""
        weights = (self.labels, self.answers, self.features, self.attention, self.relations)
        if min(weights) < 0 or not max(weights) > 0:
            raise ValueError("weights must not be negative, and one of them above 0")
        if not self.temperature > 0:
            raise ValueError(
                f"temperature must be above 0, got {self.temperature}; 2 to 8 is usual"
            )
        if self.of_layers and not self.layers:
            raise ValueError("features, attention and relations need layers={student: teacher}")

    @property
    def of_layers(self) -> bool:
        """Whether outputs of layers are compared."""
        return max(self.features, self.attention, self.relations) > 0


class Learner(nn.Module):
    """A student with what it needs only while it learns.

    Attributes:
        student: The net that is wanted.
        widen: Trained layers that bring its maps to the teacher's width.
    """

    def __init__(
        self,
        student: nn.Module,
        teacher: Teacher,
        example: Tensor,
        config: DistillationConfig | None = None,
    ) -> None:
        """Put both together.

        Args:
            student: The net that is wanted.
            teacher: A net, which stays as it is, or any function.
            example: Inputs of two items or more.
            config: What is learned.

        Raises:
            DistillationError: When their answers or the named layers do not go together.
        """
        super().__init__()
        self.student, self.config = student, config or DistillationConfig()
        # Not a part of this net: it is neither trained nor saved with it.
        self._teacher: tuple[Teacher] = (teacher,)
        if isinstance(teacher, nn.Module):
            # A copy: the caller's may go on training.
            self._teacher = (copy.deepcopy(teacher).eval().requires_grad_(requires_grad=False),)
        elif self.config.of_layers:
            raise DistillationError(
                "features, attention and relations look into the teacher, which is no net; "
                "set them to 0 and learn its answers"
            )
        self.widen = nn.ModuleDict()
        tried = copy.deepcopy(student).eval()
        with torch.no_grad(), _outputs(tried, self.config.layers) as ours:
            answers = _columns(tried(example))
        given, theirs = self._taught(example)
        if answers.shape != _columns(given).shape:
            raise DistillationError(
                f"the student answers {tuple(answers.shape)}, the teacher {tuple(given.shape)}; "
                "give the student as many outputs"
            )
        if self.config.features:
            for mine, other in self.config.layers.items():
                layer = _between(mine, ours[mine], other, theirs[other])
                self.widen[mine.replace(".", "/")] = layer.to(ours[mine].device, ours[mine].dtype)
        for mine, other in self.config.layers.items():
            _require_maps(mine, ours[mine], other, theirs[other], self.config)

    def forward(self, x: Tensor) -> Any:
        """Return the student's answers."""
        return self.student(x)

    def _apply(self, fn: Callable[[Any], Any], recurse: bool = True) -> Learner:  # noqa: FBT001, FBT002
        """Take the teacher along to another device or format."""
        teacher = self._teacher[0]
        if isinstance(teacher, nn.Module):
            teacher._apply(fn)  # type: ignore[no-untyped-call]  # noqa: SLF001 - as containers do
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        return self

    def loss(
        self, on_labels: OnLabels, inputs: Callable[[Any], Tensor] = lambda batch: batch[0]
    ) -> Loss[Any]:
        """Return the loss of a run that trains this net.

        Args:
            on_labels: Answers and batch -> summed loss on labels, number of items.
            inputs: What of a batch goes into the nets.
        """

        def total(model: nn.Module, batch: Any) -> tuple[Tensor, int]:
            x = inputs(batch)
            with _outputs(self.student, self.config.layers) as ours:
                answers = model(x)
            given, theirs = self._taught(x)
            summed, items = on_labels(answers, batch)
            # The teacher speaks of items without labels, too.
            taught = self._taught_loss(answers, given, ours, theirs) * len(x)
            return self.config.labels * summed + taught, items

        return total

    def _taught_loss(
        self, answers: Tensor, given: Tensor, ours: dict[str, Tensor], theirs: dict[str, Tensor]
    ) -> Tensor:
        """Return the mean per item of what the teacher says."""
        config = self.config
        total = answers.new_zeros(())
        if config.answers:
            total = total + config.answers * softened(answers, given, config.temperature)
        for mine, other in config.layers.items():
            a, b = ours[mine], theirs[other].detach()
            if config.features:
                wide = self.widen[mine.replace(".", "/")](a)
                total = total + config.features * functional.mse_loss(_sized(wide, b), b)
            if config.attention:
                total = total + config.attention * attention(a, b)
            if config.relations:
                total = total + config.relations * relations(a, b)
        return total

    def _taught(self, x: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the teacher's answers and the outputs of its layers."""
        teacher = self._teacher[0]
        with torch.no_grad():
            if not isinstance(teacher, nn.Module):
                return teacher(x), {}
            with _outputs(teacher, self.config.layers.values()) as seen:
                return teacher(x), seen


def softened(answers: Tensor, given: Tensor, temperature: float) -> Tensor:
    """Return the mean divergence of softened answers, times temperature squared (Hinton et al.).

    Args:
        answers: Student's logits [n, classes], or [n] or [n, 1] of a yes or no.
        given: Teacher's.
        temperature: Both are divided by it.
    """
    ours, theirs = _columns(answers) / temperature, _columns(given) / temperature
    if ours.shape[1] == 1:
        # No and yes as two classes: logits 0 and x.
        ours, theirs = (functional.pad(each, (1, 0)) for each in (ours, theirs))
    loss = functional.kl_div(
        ours.log_softmax(1), theirs.log_softmax(1), reduction="batchmean", log_target=True
    )
    return loss * temperature**2


def attention(ours: Tensor, theirs: Tensor) -> Tensor:
    """Return the mean squared distance of attention maps.

    Args:
        ours: Student's map [n, c, h, w], or tokens [n, length, c].
        theirs: Teacher's; the student's is brought to its size.
    """
    return 1e3 * functional.mse_loss(_attended(_sized(ours, theirs)), _attended(theirs))


def relations(ours: Tensor, theirs: Tensor) -> Tensor:
    """Return how much distances and angles between items differ (weights 1 and 2, as published).

    Args:
        ours: Student's outputs [n, ...]; maps are averaged over places.
        theirs: Teacher's.
    """
    a, b = _pooled(ours), _pooled(theirs)
    if len(a) < 3:
        return a.new_zeros(())
    distance = functional.smooth_l1_loss(_distances(a), _distances(b))
    angle = functional.smooth_l1_loss(_angles(a), _angles(b))
    return distance + 2 * angle


def _columns(answers: Tensor) -> Tensor:
    return answers[:, None] if answers.dim() == 1 else answers


def _pooled(x: Tensor) -> Tensor:
    if x.dim() == 4:
        return x.mean((2, 3))
    return x.mean(1) if x.dim() == 3 else x


def _distances(x: Tensor) -> Tensor:
    """Return distances between items in units of their mean, [n, n]."""
    apart = (x[:, None] - x[None]).square().sum(2).clamp_min(1e-12).sqrt()
    count = len(x) * (len(x) - 1)
    return apart / (apart.sum() / count).clamp_min(1e-12)


def _angles(x: Tensor) -> Tensor:
    """Return cosines of the angle at item i between j and k, [n, n, n]."""
    apart = functional.normalize(x[None] - x[:, None], dim=2)
    return apart @ apart.mT


def _attended(x: Tensor) -> Tensor:
    """Return where a map is large, as one vector of length 1 per item."""
    energy = x.square().mean(1 if x.dim() == 4 else 2).flatten(1)
    return functional.normalize(energy, dim=1)


def _sized(ours: Tensor, theirs: Tensor) -> Tensor:
    """Bring a map to another's height and width."""
    if ours.dim() == 4 and ours.shape[2:] != theirs.shape[2:]:
        return functional.adaptive_avg_pool2d(ours, (theirs.shape[2], theirs.shape[3]))
    return ours


def _require_maps(
    mine: str, ours: Tensor, other: str, theirs: Tensor, config: DistillationConfig
) -> None:
    """Refuse layers whose outputs are not what a part of the loss compares."""
    if config.attention and not ours.dim() == theirs.dim() >= 3:
        raise DistillationError(
            f"attention needs maps or tokens: {mine} gives {tuple(ours.shape)}, {other} "
            f"{tuple(theirs.shape)}"
        )


def _between(mine: str, ours: Tensor, other: str, theirs: Tensor) -> nn.Module:
    """Return a layer from the student's width to the teacher's."""
    if ours.dim() != theirs.dim() or ours.dim() not in {2, 3, 4}:
        raise DistillationError(
            f"{mine} gives {tuple(ours.shape)}, {other} {tuple(theirs.shape)}; name layers whose "
            "outputs have as many dimensions, 2 to 4"
        )
    if ours.dim() == 4:
        return nn.Conv2d(ours.shape[1], theirs.shape[1], 1)
    return nn.Linear(ours.shape[-1], theirs.shape[-1])


@contextmanager
def _outputs(model: nn.Module, layers: Iterable[str]) -> Iterator[dict[str, Tensor]]:
    """Keep what some layers give while the block runs.

    Raises:
        DistillationError: When the net has no such layer.
    """
    seen: dict[str, Tensor] = {}
    hooks = []
    for name in layers:
        try:
            layer = model.get_submodule(name)
        except AttributeError as error:
            known = ", ".join(each for each, _ in model.named_children())
            raise DistillationError(
                f"{type(model).__name__} has no layer {name!r}; it has {known}"
            ) from error
        hooks.append(
            layer.register_forward_hook(
                lambda _layer, _inputs, output, name=name: seen.__setitem__(name, output.clone())
            )
        )
    try:
        yield seen
    finally:
        for hook in hooks:
            hook.remove()
