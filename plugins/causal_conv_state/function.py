"""CausalConvState as an ONNX function: the weighted sum of every row's window of past|x, then SiLU."""

FUNCTION = """
<domain: "ai.antiphon", opset_import: ["" : 24]>
CausalConvState (x, weight, past, query_length) => (y, present) {
    zero = Constant <value_int = 0> ()
    one = Constant <value_int = 1> ()
    two = Constant <value_int = 2> ()
    column_axis = Constant <value_ints = [1]> ()
    last_axis = Constant <value_ints = [2]> ()
    rest = Constant <value_ints = [-1]> ()
    rows = Concat <axis = 1> (past, x)
    x_dims = Shape (x)
    weight_dims = Shape (weight)
    past_dims = Shape (past)
    tokens = Gather (x_dims, one)
    kernel = Gather (weight_dims, two)
    kept = Gather (past_dims, one)
    token = Range (zero, tokens, one)
    tap = Range (zero, kernel, one)
    token_column = Unsqueeze (token, column_axis)
    window_index = Add (token_column, tap)
    windows = Gather <axis = 1> (rows, window_index)
    taps = Transpose <perm = [1, 2, 0]> (weight)
    weighted = Mul (windows, taps)
    convolved = ReduceSum <keepdims = 0> (weighted, last_axis)
    gate = Sigmoid (convolved)
    activated = Mul (convolved, gate)
    length_column = Unsqueeze (query_length, column_axis)
    is_row = Less (token, length_column)
    is_row_column = Unsqueeze (is_row, last_axis)
    nothing = CastLike (zero, x)
    y = Where (is_row_column, activated, nothing)
    kept_row = Range (zero, kept, one)
    kept_index = Add (length_column, kept_row)
    kept_index_column = Unsqueeze (kept_index, rest)
    present = GatherND <batch_dims = 1> (rows, kept_index_column)
}
"""
