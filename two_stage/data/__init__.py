"""From files and data sets to rows: the documents of stage one, the labelled texts and sentences of stage two."""
