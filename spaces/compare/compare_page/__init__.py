"""The page of the Space: what is drawn (`panels`), how it looks (`look`), what happens (`blocks`), and for programs."""
