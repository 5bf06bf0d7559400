"""Configuration of a GPT trained with Ziggurat: dense, MoE and residual MoE (PR-MoE) layers in any order."""
from transformers import PretrainedConfig


class ZigguratConfig(PretrainedConfig):
    """
    ffn_kinds: of each layer, "dense" (an MLP), "moe" (experts) or "residual_moe" (an MLP and experts).
    ffn_experts: of each layer, how many experts.
    hidden_act: "gelu_tanh" or "gelu_erf" (down(gelu(up(x)))), "swiglu" (down(silu(gate(x)) * up(x))), or "swiglu_linear"
        (down(silu(gate(x)) * value(x) * up(x))).
    norm: "layer_norm" or "rms_norm".  positions: "learned" or "rope" (half-split, as Llama).
    sliding_window: a token attends to so many tokens at most, itself the last of them; 0: to all.
    attention_scale: of queries times keys; 0: 1 / sqrt(head_dim).
    qk_norm: "none", or RMS normalisation of queries and keys, before they are rotated: over each "head" (as Qwen3) or
        over the "width" of all heads (as OLMoE).
    scoring_func: "softmax", or "sigmoid" of each expert's logit (DeepSeek-V3).
    norm_topk_prob: divide the chosen experts' scores by their sum.
    routed_scaling_factor: the chosen experts' weights times this.
    n_group, topk_group: a token's experts come from its topk_group best of n_group groups: by their best expert (softmax,
        DeepSeek-V2) or their two best (sigmoid, DeepSeek-V3).
    balance_bias: experts are chosen by score plus a bias.
    residual_mix: "softmax" (c0 * experts + c1 * mlp, c = softmax of a linear layer), "sum", or "sigmoid" (experts +
        c * mlp, c = sigmoid of a linear layer, as Qwen2-MoE's shared expert), or "sequential" (x += experts(norm2(x));
        x += mlp(norm3(x)), as OpenMoE).
    moe_intermediate_size: inner width of an expert, and shared_expert_intermediate_size: of the MLP beside experts in a
        residual layer; 0: intermediate_size.
    """

    model_type = "ziggurat"
    keys_to_ignore_at_inference = ["past_key_values", "cache"]

    def __init__(
        self,
        vocab_size=50257,
        max_position_embeddings=2048,
        hidden_size=768,
        intermediate_size=3072,
        moe_intermediate_size=0,
        shared_expert_intermediate_size=0,
        num_hidden_layers=12,
        num_attention_heads=12,
        num_key_value_heads=12,
        head_dim=64,
        hidden_act="gelu_tanh",
        norm="layer_norm",
        norm_eps=1e-5,
        positions="learned",
        rope_theta=10000.0,
        attention_scale=0.0,
        sliding_window=0,
        qk_norm="none",
        use_bias=True,
        ffn_kinds=None,
        ffn_experts=None,
        num_experts_per_tok=1,
        norm_topk_prob=False,
        scoring_func="softmax",
        routed_scaling_factor=1.0,
        n_group=1,
        topk_group=1,
        balance_bias=False,
        residual_mix="softmax",
        coefficient_bias=True,
        embedding_dropout=0.0,
        attention_dropout=0.0,
        hidden_dropout=0.0,
        initializer_range=0.02,
        use_cache=True,
        tie_word_embeddings=True,
        **kwargs,
    ):
        self.vocab_size = vocab_size
        self.max_position_embeddings = max_position_embeddings
        self.hidden_size = hidden_size
        self.intermediate_size = intermediate_size
        self.moe_intermediate_size = moe_intermediate_size or intermediate_size
        self.shared_expert_intermediate_size = shared_expert_intermediate_size or intermediate_size
        self.num_hidden_layers = num_hidden_layers
        self.num_attention_heads = num_attention_heads
        self.num_key_value_heads = num_key_value_heads
        self.head_dim = head_dim
        self.hidden_act = hidden_act
        self.norm = norm
        self.norm_eps = norm_eps
        self.positions = positions
        self.rope_theta = rope_theta
        self.attention_scale = attention_scale
        self.sliding_window = sliding_window
        self.qk_norm = qk_norm
        self.use_bias = use_bias
        self.ffn_kinds = ffn_kinds or ["dense"] * num_hidden_layers
        self.ffn_experts = ffn_experts or [0] * num_hidden_layers
        self.num_experts_per_tok = num_experts_per_tok
        self.norm_topk_prob = norm_topk_prob
        self.scoring_func = scoring_func
        self.routed_scaling_factor = routed_scaling_factor
        self.n_group = n_group
        self.topk_group = topk_group
        self.balance_bias = balance_bias
        self.residual_mix = residual_mix
        self.coefficient_bias = coefficient_bias
        self.embedding_dropout = embedding_dropout
        self.attention_dropout = attention_dropout
        self.hidden_dropout = hidden_dropout
        self.initializer_range = initializer_range
        self.use_cache = use_cache
        super().__init__(tie_word_embeddings=tie_word_embeddings, **kwargs)
