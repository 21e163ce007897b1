"""Why a text got its answer: its nearest sentences of training, and its words by their weight."""
