"""The meaning of Attention as an ONNX function: scatter into the cache, then masked attention over all of it.

The mask is explicit: TensorRT drops the `nonpad_kv_seqlen` input of Attention-24 silently (shared/toolchain.md).
"""

FUNCTION = """
<domain: "ai.antiphon", opset_import: ["" : 24]>
Attention <num_heads, kv_num_heads> (query, key, value, past_key, past_value, past_length, query_length) => (y, present_key, present_value) {
    keep = Constant <value_ints = [0, 0]> ()
    keep_tokens = Constant <value_ints = [0]> ()
    rest = Constant <value_ints = [-1]> ()
    flat = Constant <value_ints = [0, 0, -1]> ()
    zero = Constant <value_int = 0> ()
    one = Constant <value_int = 1> ()
    axes = Constant <value_ints = [1, 2]> ()
    head_axes = Constant <value_ints = [1, 2, 3]> ()
    kv_heads_scalar = Constant <value_int: int = @kv_num_heads> ()
    heads_scalar = Constant <value_int: int = @num_heads> ()
    kv_heads = Unsqueeze (kv_heads_scalar, keep_tokens)
    heads = Unsqueeze (heads_scalar, keep_tokens)
    kv_shape = Concat <axis = 0> (keep, kv_heads, rest)
    query_shape = Concat <axis = 0> (keep, heads, rest)
    key_rows = Reshape (key, kv_shape)
    value_rows = Reshape (value, kv_shape)
    query_rows = Reshape (query, query_shape)
    key_heads = Transpose <perm = [0, 2, 1, 3]> (key_rows)
    value_heads = Transpose <perm = [0, 2, 1, 3]> (value_rows)
    query_heads = Transpose <perm = [0, 2, 1, 3]> (query_rows)
    present_key = TensorScatter <axis = 2> (past_key, key_heads, past_length)
    present_value = TensorScatter <axis = 2> (past_value, value_heads, past_length)
    query_dims = Shape (query)
    past_dims = Shape (past_key)
    tokens = Gather (query_dims, one)
    two = Constant <value_int = 2> ()
    capacity = Gather (past_dims, two)
    token = Range (zero, tokens, one)
    slot = Range (zero, capacity, one)
    token_column = Unsqueeze (token, rest)
    past_column = Unsqueeze (past_length, axes)
    last_visible = Add (past_column, token_column)
    visible_3d = LessOrEqual (slot, last_visible)
    visible = Unsqueeze (visible_3d, one)
    attended = Attention (query_heads, present_key, present_value, visible)
    attended_rows = Transpose <perm = [0, 2, 1, 3]> (attended)
    y_all = Reshape (attended_rows, flat)
    length_column = Unsqueeze (query_length, axes)
    is_row = Less (token_column, length_column)
    nothing = CastLike (zero, query)
    y = Where (is_row, y_all, nothing)
}
"""
