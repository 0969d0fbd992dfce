"""The model that is trained: `GPT2ForSequenceClassification`, fed with packed rows."""

import torch
from torch.nn import functional
from transformers.modeling_outputs import SequenceClassifierOutput
from transformers.models.gpt2 import GPT2ForSequenceClassification

from reward_train.packing import NO_LABEL


class PackedClassifier(GPT2ForSequenceClassification):  # type: ignore[no-untyped-call]
    """A GPT-2 classifier for rows packed by `reward_train.packing`, with the same logits.

    Attributes:
        token_loss: weight of the loss of every candidate token's own logit, in addition to that
            of the scored token; 0 is the card's training.
    """

    accepts_loss_kwargs = False
    token_loss = 0.0

    def forward(  # noqa: PLR0913, PLR0917  # packed input, on purpose
        self,
        input_ids: torch.Tensor,
        position_ids: torch.Tensor,
        attention_mask: torch.Tensor,
        scored: torch.Tensor,
        labels: torch.Tensor | None = None,
        token_labels: torch.Tensor | None = None,
    ) -> SequenceClassifierOutput:
        """Logits of the rows, and their binary cross entropy.

        Args:
            input_ids: int64 [G, T].
            position_ids: int64 [G, T].
            attention_mask: bool [G, 1, T, T].
            scored: int64 [G, R].
            labels: float [G, R], -100 where there is no row.
            token_labels: float [G, T], -100 where there is no candidate's token.

        Returns:
            `logits`, float32 [G, R], and `loss` if there are labels.
        """
        hidden = self.transformer(
            input_ids,
            position_ids=position_ids,
            attention_mask=torch.where(attention_mask, 0.0, torch.finfo(self.dtype).min),
            use_cache=False,
        ).last_hidden_state  # [G, T, H]
        each = self.score(hidden)[:, :, 0].float()  # [G, T]
        logits = each.gather(1, scored)
        if labels is None:
            return SequenceClassifierOutput(logits=logits)
        loss = _binary_cross_entropy(logits, labels)
        if self.token_loss and token_labels is not None:
            loss = loss + self.token_loss * _binary_cross_entropy(each, token_labels)
        return SequenceClassifierOutput(loss=loss, logits=logits)


def _binary_cross_entropy(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Mean over the places that have a label."""
    known = labels != NO_LABEL
    return functional.binary_cross_entropy_with_logits(logits[known], labels[known].float())
