"""Attention as an ONNX function: write new rows into the cache, then masked attention over all of it.

The mask is explicit, because TensorRT silently drops the `nonpad_kv_seqlen` input of Attention-24. The cache
is written by a Where over every slot: TensorScatter would also write padding rows, over old rows and beyond
the capacity.
"""

FUNCTION = """
<domain: "ai.antiphon", opset_import: ["" : 24]>
Attention <num_heads, kv_num_heads> (query, key, value, past_key, past_value, past_length, \
query_length) => (y, present_key, present_value) {
    keep = Constant <value_ints = [0, 0]> ()
    keep_tokens = Constant <value_ints = [0]> ()
    rest = Constant <value_ints = [-1]> ()
    flat = Constant <value_ints = [0, 0, -1]> ()
    zero = Constant <value_int = 0> ()
    one = Constant <value_int = 1> ()
    two = Constant <value_int = 2> ()
    column_axis = Constant <value_ints = [1]> ()
    row_axes = Constant <value_ints = [1, 2]> ()
    slot_axes = Constant <value_ints = [1, 3]> ()
    kv_heads_scalar = Constant <value_int: int = @kv_num_heads> ()
    heads_scalar = Constant <value_int: int = @num_heads> ()
    kv_heads = Unsqueeze (kv_heads_scalar, keep_tokens)
    heads = Unsqueeze (heads_scalar, keep_tokens)
    kv_shape = Concat <axis = 0> (keep, kv_heads, rest)
    query_shape = Concat <axis = 0> (keep, heads, rest)
    key_rows = Reshape (key, kv_shape)
    value_rows = Reshape (value, kv_shape)
    query_rows = Reshape (query, query_shape)
    query_heads = Transpose <perm = [0, 2, 1, 3]> (query_rows)
    query_dims = Shape (query)
    past_dims = Shape (past_key)
    tokens = Gather (query_dims, one)
    capacity = Gather (past_dims, two)
    token = Range (zero, tokens, one)
    slot = Range (zero, capacity, one)
    past_column = Unsqueeze (past_length, column_axis)
    length_column = Unsqueeze (query_length, column_axis)
    new_row = Sub (slot, past_column)
    is_after_past = GreaterOrEqual (new_row, zero)
    is_before_end = Less (new_row, length_column)
    is_new = And (is_after_past, is_before_end)
    is_new_slot = Unsqueeze (is_new, slot_axes)
    last_token = Sub (tokens, one)
    safe_row = Clip (new_row, zero, last_token)
    row_index = Unsqueeze (safe_row, rest)
    key_slots = GatherND <batch_dims = 1> (key_rows, row_index)
    value_slots = GatherND <batch_dims = 1> (value_rows, row_index)
    key_heads = Transpose <perm = [0, 2, 1, 3]> (key_slots)
    value_heads = Transpose <perm = [0, 2, 1, 3]> (value_slots)
    present_key = Where (is_new_slot, key_heads, past_key)
    present_value = Where (is_new_slot, value_heads, past_value)
    token_column = Unsqueeze (token, rest)
    past_block = Unsqueeze (past_length, row_axes)
    last_visible = Add (past_block, token_column)
    visible_rows = LessOrEqual (slot, last_visible)
    visible = Unsqueeze (visible_rows, column_axis)
    attended = Attention (query_heads, present_key, present_value, visible)
    attended_rows = Transpose <perm = [0, 2, 1, 3]> (attended)
    y_all = Reshape (attended_rows, flat)
    length_block = Unsqueeze (query_length, row_axes)
    is_row = Less (token_column, length_block)
    nothing = CastLike (zero, query)
    y = Where (is_row, y_all, nothing)
}
"""
