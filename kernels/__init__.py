"""Operations that the objectives spend their time in, each a public function on torch tensors."""
