"""A SentencePiece model as a tokenizer: the ids are those of the sentencepiece library itself (pip install
sentencepiece), for every kind of model. Nothing is put around a text."""
import os
import shutil

import sentencepiece
from transformers import PreTrainedTokenizer


class ZigguratTokenizer(PreTrainedTokenizer):
    vocab_files_names = {"vocab_file": "tokenizer.model"}
    model_input_names = ["input_ids", "attention_mask"]

    def __init__(self, vocab_file, **kwargs):
        self.vocab_file = vocab_file
        self.model = sentencepiece.SentencePieceProcessor(model_file=vocab_file)
        if self.model.eos_id() >= 0:  # ends every document, so it also stands before a text that has no beginning
            end = self.model.id_to_piece(self.model.eos_id())
            kwargs = {"bos_token": end, "eos_token": end} | kwargs
        super().__init__(**{"unk_token": self.model.id_to_piece(self.model.unk_id())} | kwargs)

    def __getstate__(self):
        return self.__dict__ | {"model": None}

    def __setstate__(self, state):
        self.__dict__ = state
        self.model = sentencepiece.SentencePieceProcessor(model_file=self.vocab_file)

    @property
    def vocab_size(self):
        return self.model.get_piece_size()

    def get_vocab(self):
        return {self.model.id_to_piece(i): i for i in range(self.vocab_size)} | self.added_tokens_encoder

    def _tokenize(self, text, **kwargs):
        return self.model.encode(text, out_type=str)

    def _convert_token_to_id(self, token):
        return self.model.piece_to_id(token)

    def _convert_id_to_token(self, index):
        return self.model.id_to_piece(index)

    def convert_tokens_to_string(self, tokens):
        return self.model.decode_pieces(tokens)

    def build_inputs_with_special_tokens(self, token_ids_0, token_ids_1=None):
        return token_ids_0 + (token_ids_1 or [])

    def save_vocabulary(self, save_directory, filename_prefix=None):
        name = (filename_prefix + "-" if filename_prefix else "") + "tokenizer.model"
        target = os.path.join(save_directory, name)
        if os.path.abspath(target) != os.path.abspath(self.vocab_file):
            shutil.copyfile(self.vocab_file, target)
        return (target,)
