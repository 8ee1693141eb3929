//! CSV and text files as people have them: dialects, encodings, headers, and what `infer` makes of them.
