"""A GPT trained with Ziggurat, in plain PyTorch: x += attention(norm(x)); x += feed_forward(norm(x)).

A feed-forward is an MLP, or experts of which each token meets the num_experts_per_tok likeliest, weighted by their
probabilities, or both mixed (residual MoE; with growing numbers of experts: PR-MoE, arXiv 2201.05596). No token is
dropped. Works with transformers 4 and 5.
"""
import dataclasses

import torch
from torch import nn
from torch.nn import functional as F
from transformers import DynamicCache, GenerationMixin, PreTrainedModel
from transformers.modeling_outputs import BaseModelOutputWithPast, CausalLMOutputWithPast

from .configuration_ziggurat import ZigguratConfig

# The keys and values of past tokens are `past_key_values` or, in newer versions, `cache`.
CACHE = "cache" if "cache" in {f.name for f in dataclasses.fields(CausalLMOutputWithPast)} else "past_key_values"


class RMSNorm(nn.Module):
    def __init__(self, width, eps):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.eps = eps

    def forward(self, x):
        y = x.float()
        y = y * torch.rsqrt(y.square().mean(-1, keepdim=True) + self.eps)
        return (self.weight.float() * y).to(x.dtype)

    def in_groups(self, x):
        """Each stretch of x that is as long as the weight by itself."""
        return self(x.unflatten(-1, (-1, len(self.weight)))).flatten(-2)


def make_norm(config):
    kind = nn.LayerNorm if config.norm == "layer_norm" else RMSNorm
    return kind(config.hidden_size, eps=config.norm_eps)


def rotate(x, cos, sin):
    """x [batch, heads, length, head_dim]; cos and sin [batch, 1, length, head_dim / 2]."""
    low, high = x.float().chunk(2, dim=-1)
    return torch.cat((low * cos - high * sin, high * cos + low * sin), dim=-1).to(x.dtype)


class ZigguratAttention(nn.Module):
    def __init__(self, config, layer):
        super().__init__()
        self.layer = layer
        self.heads, self.kv_heads, self.head_dim = (
            config.num_attention_heads, config.num_key_value_heads, config.head_dim,
        )  # fmt: skip
        self.dropout = config.attention_dropout
        self.scale = config.attention_scale or self.head_dim**-0.5
        self.qkv = nn.Linear(
            config.hidden_size, (self.heads + 2 * self.kv_heads) * self.head_dim, bias=config.use_bias
        )
        self.out = nn.Linear(self.heads * self.head_dim, config.hidden_size, bias=config.use_bias)
        if config.qk_norm != "none":
            q_heads, k_heads = (1, 1) if config.qk_norm == "head" else (self.heads, self.kv_heads)
            self.q_norm = RMSNorm(q_heads * self.head_dim, config.norm_eps)
            self.k_norm = RMSNorm(k_heads * self.head_dim, config.norm_eps)

    def split(self, qkv):
        """q, k and v [batch, heads, length, head_dim] each; qkv [batch, length, width]."""
        q, k, v = qkv.split([heads * self.head_dim for heads in (self.heads, self.kv_heads, self.kv_heads)], dim=-1)
        if hasattr(self, "q_norm"):
            q, k = self.q_norm.in_groups(q), self.k_norm.in_groups(k)
        return (x.unflatten(-1, (-1, self.head_dim)).transpose(1, 2) for x in (q, k, v))

    def forward(self, x, mask, rotation, cache):
        batch, length, _ = x.shape
        q, k, v = self.split(self.qkv(x))
        if rotation is not None:
            q, k = rotate(q, *rotation), rotate(k, *rotation)
        if cache is not None:
            k, v = cache.update(k, v, self.layer)
        groups = self.heads // self.kv_heads
        k, v = k.repeat_interleave(groups, dim=1), v.repeat_interleave(groups, dim=1)
        y = F.scaled_dot_product_attention(
            q, k, v, attn_mask=mask, dropout_p=self.dropout if self.training else 0.0, scale=self.scale
        )
        return self.out(y.transpose(1, 2).reshape(batch, length, -1))


class ZigguratMlp(nn.Module):
    def __init__(self, config, inner):
        super().__init__()
        self.act = config.hidden_act
        width, bias = config.hidden_size, config.use_bias
        if self.act.startswith("swiglu"):
            self.gate = nn.Linear(width, inner, bias=bias)
        if self.act == "swiglu_linear":
            self.value = nn.Linear(width, inner, bias=bias)
        self.up = nn.Linear(width, inner, bias=bias)
        self.down = nn.Linear(inner, width, bias=bias)

    def forward(self, x):
        if self.act == "swiglu":
            return self.down(F.silu(self.gate(x)) * self.up(x))
        if self.act == "swiglu_linear":
            return self.down(F.silu(self.gate(x)) * self.value(x) * self.up(x))
        return self.down(F.gelu(self.up(x), approximate="tanh" if self.act == "gelu_tanh" else "none"))


class ZigguratExperts(nn.Module):
    """The experts of a layer and its router; in a residual layer also the linear layer of the mix."""

    def __init__(self, config, layer):
        super().__init__()
        experts = config.ffn_experts[layer]
        self.top_k, self.norm_topk_prob = config.num_experts_per_tok, config.norm_topk_prob
        self.sigmoid, self.scale = config.scoring_func == "sigmoid", config.routed_scaling_factor
        self.groups, self.topk_group = config.n_group, config.topk_group
        self.router = nn.Linear(config.hidden_size, experts, bias=False)
        if config.balance_bias:
            self.balance_bias = nn.Parameter(torch.zeros(experts), requires_grad=False)
        self.expert_list = nn.ModuleList(ZigguratMlp(config, config.moe_intermediate_size) for _ in range(experts))
        if config.ffn_kinds[layer] == "residual_moe" and config.residual_mix in ("softmax", "sigmoid"):
            coefficients = 2 if config.residual_mix == "softmax" else 1
            self.coefficient = nn.Linear(config.hidden_size, coefficients, bias=config.coefficient_bias)

    def choose(self, scores):
        """The experts of each token [tokens, top_k]; scores [tokens, experts]."""
        if hasattr(self, "balance_bias"):
            scores = scores + self.balance_bias.float()
        if self.topk_group < self.groups:
            grouped = scores.unflatten(-1, (self.groups, -1))
            best = grouped.topk(min(2 if self.sigmoid else 1, grouped.shape[-1]), dim=-1).values.sum(-1)
            out = torch.ones_like(best, dtype=torch.bool)
            out.scatter_(-1, best.topk(self.topk_group, dim=-1).indices, False)
            scores = grouped.masked_fill(out[..., None], -torch.inf).flatten(-2)
        return scores.topk(self.top_k, dim=-1).indices

    def forward(self, x):
        """x [tokens, width]"""
        logits = F.linear(x.float(), self.router.weight.float())
        scores = logits.sigmoid() if self.sigmoid else logits.softmax(-1)
        chosen = self.choose(scores)
        weights = scores.gather(-1, chosen)
        if self.norm_topk_prob:
            weights = weights / weights.sum(-1, keepdim=True)
        weights = self.scale * weights
        y = torch.zeros_like(x)
        for e in chosen.unique().tolist():
            token, choice = torch.where(chosen == e)
            weighted = self.expert_list[e](x[token]) * weights[token, choice, None].to(x.dtype)
            y.index_add_(0, token, weighted)
        return y

    def mix(self, routed, fixed, x):
        if not hasattr(self, "coefficient"):
            return routed + fixed
        c = self.coefficient(x).float()
        if c.shape[-1] == 1:
            return routed + c.sigmoid().to(x.dtype) * fixed
        c = c.softmax(-1).to(x.dtype)
        return c[:, :1] * routed + c[:, 1:] * fixed


class ZigguratLayer(nn.Module):
    def __init__(self, config, layer):
        super().__init__()
        kind = config.ffn_kinds[layer]
        self.norm1 = make_norm(config)
        self.attention = ZigguratAttention(config, layer)
        self.norm2 = make_norm(config)
        inner = config.intermediate_size if kind == "dense" else config.shared_expert_intermediate_size
        self.mlp = ZigguratMlp(config, inner) if kind != "moe" else None
        self.moe = ZigguratExperts(config, layer) if kind != "dense" else None
        self.sequential = kind == "residual_moe" and config.residual_mix == "sequential"
        if self.sequential:
            self.norm3 = make_norm(config)
        self.dropout = nn.Dropout(config.hidden_dropout)

    def feed_forward(self, x):
        if self.moe is None:
            return self.mlp(x)
        tokens = x.reshape(-1, x.shape[-1])
        y = self.moe(tokens)
        if self.mlp is not None and not self.sequential:
            y = self.moe.mix(y, self.mlp(tokens), tokens)
        return y.view_as(x)

    def forward(self, x, mask, rotation, cache):
        x = x + self.dropout(self.attention(self.norm1(x), mask, rotation, cache))
        x = x + self.dropout(self.feed_forward(self.norm2(x)))
        return x + self.dropout(self.mlp(self.norm3(x))) if self.sequential else x


class ZigguratPreTrainedModel(PreTrainedModel):
    config_class = ZigguratConfig
    base_model_prefix = "model"
    _no_split_modules = ["ZigguratLayer"]
    _supports_sdpa = True
    _supports_cache_class = True

    def _init_weights(self, module):
        if isinstance(module, (nn.Linear, nn.Embedding)):
            nn.init.normal_(module.weight, std=self.config.initializer_range)
            if getattr(module, "bias", None) is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, (nn.LayerNorm, RMSNorm)):
            nn.init.ones_(module.weight)
            if getattr(module, "bias", None) is not None:
                nn.init.zeros_(module.bias)


class ZigguratModel(ZigguratPreTrainedModel):
    def __init__(self, config):
        super().__init__(config)
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        if config.positions == "learned":
            self.embed_positions = nn.Embedding(config.max_position_embeddings, config.hidden_size)
        self.dropout = nn.Dropout(config.embedding_dropout)
        self.layers = nn.ModuleList(ZigguratLayer(config, i) for i in range(config.num_hidden_layers))
        self.norm = make_norm(config)
        self.post_init()

    def get_input_embeddings(self):
        return self.embed_tokens

    def set_input_embeddings(self, table):
        self.embed_tokens = table

    def rotation(self, positions):
        """cos and sin [batch, 1, length, head_dim / 2] of the positions' angles, computed in float64."""
        half = torch.arange(0, self.config.head_dim, 2, dtype=torch.float64, device=positions.device)
        frequencies = self.config.rope_theta ** (-half / self.config.head_dim)
        angles = positions[:, None, :, None].to(torch.float64) * frequencies
        return angles.cos().float(), angles.sin().float()

    def mask(self, attention_mask, batch, past, length, keys, device):
        """bool [batch, 1, length, keys]: a token sees itself and those before it that are not padding."""
        if attention_mask is not None and attention_mask.dim() == 4:
            return attention_mask
        rows = torch.arange(past, past + length, device=device)[:, None]
        seen = torch.arange(keys, device=device)[None, :]
        mask = seen <= rows
        if self.config.sliding_window > 0:
            mask = mask & (seen > rows - self.config.sliding_window)
        mask = mask.expand(batch, 1, length, keys)
        if attention_mask is not None:
            visible = attention_mask.bool()[:, None, None, :keys]
            mask = mask & F.pad(visible, (0, keys - visible.shape[-1]), value=True)
            # A row of padding sees itself, so that its softmax is defined; nobody sees that row.
            mask = mask | (torch.arange(keys, device=device)[None, :] == rows)
        return mask

    def forward(
        self, input_ids=None, attention_mask=None, position_ids=None, past_key_values=None, cache=None,
        inputs_embeds=None, use_cache=None, output_hidden_states=None, return_dict=None, **kwargs,
    ):  # fmt: skip
        cache = cache if cache is not None else past_key_values
        use_cache = self.config.use_cache if use_cache is None else use_cache
        if use_cache and cache is None and not self.training:
            cache = DynamicCache()
        x = self.embed_tokens(input_ids) if inputs_embeds is None else inputs_embeds
        batch, length, _ = x.shape
        past = int(cache.get_seq_length()) if cache is not None else 0
        if position_ids is None:
            position_ids = torch.arange(past, past + length, device=x.device)[None, :]
        position_ids = position_ids.view(-1, length)
        learned = self.config.positions == "learned"
        x = self.dropout(x + self.embed_positions(position_ids) if learned else x)
        rotation = None if learned else self.rotation(position_ids)

        keys = past + length
        if cache is not None and getattr(cache, "is_compileable", False):  # its tensors have their final length
            keys = cache.get_max_cache_shape()
        mask = self.mask(attention_mask, batch, past, length, keys, x.device)
        states = (x,)
        for layer in self.layers:
            x = layer(x, mask, rotation, cache)
            states += (x,)
        x = self.norm(x)
        states = states[:-1] + (x,) if output_hidden_states else None
        out = BaseModelOutputWithPast(last_hidden_state=x, hidden_states=states, **{CACHE: cache})
        return out if return_dict is not False else out.to_tuple()


class ZigguratForCausalLM(ZigguratPreTrainedModel, GenerationMixin):
    _tied_weights_keys = {"lm_head.weight": "model.embed_tokens.weight"}

    def __init__(self, config):
        super().__init__(config)
        self.model = ZigguratModel(config)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.post_init()

    def get_input_embeddings(self):
        return self.model.embed_tokens

    def set_input_embeddings(self, table):
        self.model.embed_tokens = table

    def get_output_embeddings(self):
        return self.lm_head

    def set_output_embeddings(self, head):
        self.lm_head = head

    def forward(
        self, input_ids=None, attention_mask=None, position_ids=None, past_key_values=None, cache=None,
        inputs_embeds=None, labels=None, use_cache=None, output_hidden_states=None, logits_to_keep=0,
        return_dict=None, **kwargs,
    ):  # fmt: skip
        out = self.model(
            input_ids, attention_mask, position_ids, past_key_values, cache, inputs_embeds, use_cache,
            output_hidden_states,
        )  # fmt: skip
        kept = slice(-logits_to_keep, None) if isinstance(logits_to_keep, int) else logits_to_keep
        logits = self.lm_head(out.last_hidden_state[:, kept] if logits_to_keep is not None else out.last_hidden_state)
        loss = None
        if labels is not None:
            shifted = logits[:, :-1].float().reshape(-1, logits.shape[-1])
            loss = F.cross_entropy(shifted, labels[:, 1:].reshape(-1), ignore_index=-100)
        out = CausalLMOutputWithPast(
            loss=loss, logits=logits, hidden_states=out.hidden_states, **{CACHE: getattr(out, CACHE)}
        )
        return out if return_dict is not False else out.to_tuple()
