//! `#[derive(StateRecord)]`

use proc_macro2::TokenStream;
use quote::{format_ident, quote};
use syn::{Data, DeriveInput, Error, Fields, Result};

pub fn expand(item: TokenStream) -> Result<TokenStream> {
    let input: DeriveInput = syn::parse2(item)?;
    let Data::Struct(data) = &input.data else {
        return Err(Error::new_spanned(&input.ident, "StateRecord is for structs with named fields"));
    };
    let Fields::Named(fields) = &data.fields else {
        return Err(Error::new_spanned(&input.ident, "StateRecord is for structs with named fields; a tuple is a value already"));
    };
    if !input.generics.params.is_empty() {
        return Err(Error::new_spanned(&input.generics, "a StateRecord has one fixed shape: no generics"));
    }
    let name = &input.ident;
    let count = fields.named.len();
    let idents: Vec<_> = fields.named.iter().map(|field| field.ident.as_ref().expect("named fields")).collect();
    let types: Vec<_> = fields.named.iter().map(|field| &field.ty).collect();
    let locals: Vec<_> = idents.iter().map(|ident| format_ident!("field_{ident}")).collect();
    // Fields are named as WIT spells them, in the type and in what is stored: other languages have spellings of their own.
    let texts: Vec<_> =
        idents.iter().map(|ident| ident.to_string().trim_start_matches("r#").to_lowercase().replace('_', "-")).collect();
    let wit = texts.iter().enumerate().map(|(i, text)| {
        let comma = if i == 0 { "" } else { ", " };
        format!("{comma}{text}: ")
    });

    Ok(quote! {
        const _: () = {
            use ::tidegate_sdk::__private::{DecodeError, StateValue, cbor};

            impl cbor::CborField for #name {
                fn wit_type(out: &mut String) {
                    out.push_str("record { ");
                    #(
                        out.push_str(#wit);
                        <#types as cbor::CborField>::wit_type(out);
                    )*
                    out.push_str(" }");
                }

                fn write(&self, out: &mut Vec<u8>) {
                    cbor::write_map(out, #count);
                    #(
                        cbor::write_text(out, #texts);
                        cbor::CborField::write(&self.#idents, out);
                    )*
                }

                fn read(reader: &mut cbor::CborReader<'_>) -> Result<Self, DecodeError> {
                    #(let mut #locals: Option<#types> = None;)*
                    for _ in 0..reader.map()? {
                        match reader.text()? {
                            #(#texts => #locals = Some(cbor::CborField::read(reader)?),)*
                            _ => reader.skip()?,
                        }
                    }
                    Ok(Self { #(#idents: #locals.unwrap_or_else(cbor::CborField::zero),)* })
                }

                fn zero() -> Self {
                    Self { #(#idents: cbor::CborField::zero(),)* }
                }
            }

            impl cbor::CborElement for #name {}

            impl StateValue for #name {
                const SIZE: Option<usize> = None;

                fn wit_type(out: &mut String) {
                    <Self as cbor::CborField>::wit_type(out);
                }

                fn encode(&self, out: &mut Vec<u8>) {
                    cbor::CborField::write(self, out);
                }

                fn encode_fixed(&self, _: &mut [u8]) {
                    unreachable!("a record has no fixed size");
                }

                fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
                    if bytes.is_empty() {
                        return Ok(cbor::CborField::zero());
                    }
                    let mut reader = cbor::CborReader::new(bytes);
                    let value = <Self as cbor::CborField>::read(&mut reader)?;
                    reader.end()?;
                    Ok(value)
                }
            }
        };
    })
}
