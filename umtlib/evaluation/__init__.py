"""Is a translation any good? One module per question, all of one shape (that of mir_eval).

A module states its conventions, has ``validate`` (raises `umtlib.errors.EvaluationError`), metrics
that are pure functions of arrays, and ``evaluate``, which returns a dict of numbers.

==================  ==========================================================================
`pitch`             does the output follow the input's pitch? (the paper's NCC and DTW, and better)
`notes`             are the notes of the score there? melody, notes, frames
`truth`             how far is the true rendering of the same notes by the target's instruments?
`dynamics`          attacks, decay, flutter, level: does it sound in time?
`recogniser`        does it sound like the target domain? and `frechet`: like its recordings?
`latent`            is the latent free of the source domain?
`transcription`     are the notes in the latent? (the paper's outlook)
`nsynth`            do the embeddings of a pitch agree across instruments? (the paper's Figure 3)
`seams`             can one hear where a long translation was cut?
`blending`          is a blend of two inputs seamless? and how free is a creative decoder?
`listening`         what did listeners say? opinion scores and the lineup
`stimuli`           what they are given: blinded packs for both
==================  ==========================================================================

`report` asks them all of one model, of `translations` of excerpts, and `summary` averages;
`features` holds what they listen with, `transcriber` finds notes, and `standins` are sounds
whose worth is known.
"""
