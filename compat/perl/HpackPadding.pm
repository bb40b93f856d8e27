package HpackPadding;

# The suite's encoder adds a whole byte of padding to Huffman codes that end with a byte. RFC 7541, section 5.2 demands
# that decoders refuse that, and Gapura does. Loaded before a file of the suite, this makes its clients and back ends
# follow the RFC, so that the file can show everything else.

use warnings;
use strict;

use Test::Nginx::HTTP2;

no warnings 'redefine';

*Test::Nginx::HTTP2::huff = sub {
	my ($string) = @_;
	my $code = Test::Nginx::HTTP2::huff_code();
	my $bits = join '', map { $code->{$_} } split //, $string;
	return pack('B*', $bits . '1' x (-length($bits) % 8));
};

1;
