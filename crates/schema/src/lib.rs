//! What a directive is: rows, places, typed values, inheritance, binding of a tree to typed cells.
