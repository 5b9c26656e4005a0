"""An encoder's last layer, for heads that read few of its positions.

Pretraining's heads read [CLS] and the masked words, a sixth of a row, and a sentiment head [CLS] alone. Keys and values
come from every position; queries, what attention gives and the feed-forward half, five sixths of a layer's products,
are needed where somebody reads. What is read is what the whole layer gives, and so are all gradients, but for rounding
and for where dropout happens to fall.
"""

from typing import Any

from torch import Tensor
from transformers import BertModel
from transformers.models.bert.modeling_bert import BertCrossAttention, BertLayer

from two_stage.training.cpu_training import ATTENTION

# flash attention's masks ask for as many queries as keys, and flex attention's cannot be cut
WITH_OTHER_QUERIES = {"eager", "sdpa", ATTENTION}


class FewPositionsLayer(BertLayer):
    """A BertLayer, its parameters and their names included, that can answer for some positions alone.

    Masks are of padding: alike for each query. Attentions that transformers is asked to return lack this layer's.
    """

    def forward(
        self,
        hidden_states: Tensor,
        attention_mask: Tensor | None = None,
        *args: Any,
        read_positions: Tensor | None = None,
        **kwargs: Any,
    ) -> Tensor:
        """(rows, length, width) → (rows, read, width) where `read_positions` is (rows, read), else as it was."""
        if read_positions is None:
            return super().forward(hidden_states, attention_mask, *args, **kwargs)
        read = hidden_states.gather(1, read_positions[..., None].expand(-1, -1, hidden_states.shape[-1]))
        mask = None if attention_mask is None else attention_mask[:, :, :1]  # padding, alike for each query
        # the layer's own weights, with queries that are not the keys
        attended, _ = BertCrossAttention.forward(self.attention.self, read, hidden_states, mask)
        return self.feed_forward_chunk(self.attention.output(attended, read))


def let_last_layer_read_few(bert: BertModel) -> None:
    """Give `bert` the argument `read_positions` (rows, read), for hidden states at these positions alone.

    The last layer stays the object that it is, and takes another class.
    """
    for layer in bert.encoder.layer[-1:]:
        layer.__class__ = FewPositionsLayer


def can_read_few(bert: BertModel) -> bool:
    """Whether `bert` takes `read_positions` with the attention that it has now."""
    last = bert.encoder.layer[-1:]
    return any(isinstance(layer, FewPositionsLayer) for layer in last) and (
        bert.config._attn_implementation in WITH_OTHER_QUERIES
    )
